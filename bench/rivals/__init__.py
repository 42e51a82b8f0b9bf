"""The proxies that are measured, one module each, with the same upstream behind them.

- `rival`    the interface: declared dialects, ports, settings, how it is started
- `direct`   no proxy at all: the clients' figures without one
- `nginx`    Debian's nginx with one worker
- `relay`    this project, from this tree or from a checkout of another version
- `program`  another project's program, described by a recipe
- `choice`   the options that choose rivals, and the list of recipes

A recipe each, with settings and command line: the plain proxies `haproxy`, `envoy` and `caddy`,
the gateways `litellm`, `smg`, `crabllm`, `ferro` and `portkey`.
"""
