"""Relay: one endpoint in front of several upstreams that speak the Anthropic Messages API.

Vocabulary: a *caller* holds a key; an *upstream* is one credential at one origin; a *route*
leads from a model to its upstreams; an *exchange* is one request and its response; a
*dialect* is the API that a caller speaks; a *splice* is a body joined to a body.

Layers, each importing only what stands above it in this list:

    config errors clock secret certificates
                                   values
    wire translate                 pure: octets <-> events, what bodies say; no I/O
    net store telemetry            fronts: sockets, SQLite, the log
    accounts gateway               policy: people and keys; the path of a request
    simulator                      the simulated upstream, for the demo, tests and bench
    app                            builds each object once; start and stop order
    cli                            commands

The life of a request is told in `gateway/relay.py`; read that first. `net/server.py` hands
it an exchange, `net/splice.py` is its innermost loop.
"""

__version__ = "0.1.0"
