"""The proxies that are measured, one module each, with the same upstream behind them.

- `rival`   the interface: declared dialects, ports, settings, how it is started
- `direct`  no proxy at all: the clients' figures without one
- `nginx`   Debian's nginx with one worker
- `relay`   this project, from this tree or from a checkout of another version
"""
