"""HTTP as bytes <-> events. Pure: no socket, clock, loop or log.

`events` is the vocabulary that every HTTP version shares; `h1` reads canonical
HTTP/1.1 heads and `h1_legal` (with h11) the legal rest; `headers` says which fields
travel onward; `body` and `chunked` find where a body ends, `encoding` unfolds one that came
compressed; `sse` splits event streams.
"""
