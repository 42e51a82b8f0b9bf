"""Relay: one endpoint in front of several upstreams that speak the Anthropic Messages API.

Vocabulary: a *caller* holds a key; an *upstream* is one credential at one origin; a *route*
leads from a model to its upstreams; an *exchange* is one request and its response; a
*dialect* is the API that a caller speaks; a *splice* is a body joined to a body. A *plan* has
*limits*, each a *bucket* or a *window*; a *reservation* is quota held for one request.

Layers, each importing only what stands above it in this list:

    config errors clock secret certificates
                                   values
    wire translate quota           pure: octets <-> events, what bodies say, who may use what
    net store telemetry            fronts: sockets, SQLite and its journal, the log
    accounts gateway               policy: people and keys; the path of a request, the pool
    simulator                      the simulated upstream, for the demo, tests and bench
    app                            builds each object once; start and stop order
    cli commands operate           commands

The life of a request is told in `gateway/relay.py`; read that first. `net/server.py` hands
it an exchange, `net/splice.py` is its innermost loop.
"""

__version__ = "0.1.0"
