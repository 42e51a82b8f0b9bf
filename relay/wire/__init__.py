"""HTTP as bytes <-> events. Pure: no socket, clock, loop or log.

`events` has the heads that every HTTP version shares; `h1` reads canonical HTTP/1.1 heads
and `h1_legal` (with h11) the legal rest; `headers` decides which fields travel onward;
`body` and `chunked` find where a body ends, `encoding` decompresses a request body; `sse`
splits event streams.
"""
