"""The upstream's side: `connection` and `connection_pool`, `body`, `splice`, `transcode`, `proxy`.

A response's `body` is read ahead until its first content. Then a `splice` passes its octets on, or
a `transcode` translates them.
"""
