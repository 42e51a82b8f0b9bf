"""HTTP/2 (RFC 9113) for the side of a server: octets in, events and octets out.

`connection` is the protocol; `stream` is one request's part of it. Heads come out as the same
`wire.events.Request` that HTTP/1.1 gives.
"""
