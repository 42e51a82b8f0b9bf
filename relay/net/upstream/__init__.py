"""The upstream's side: `connection` and `connection_pool`, `body`, `splice`, `transcode`, `proxy`.

A response's `body` is looked at ahead until it shows content; then a `splice` passes its octets
on, or a `transcode` translates them on the way.
"""
