"""Relay: one endpoint in front of several upstreams that speak the Anthropic Messages API.

Vocabulary: a *caller* holds a key; an *upstream* is one credential at one origin; a *route*
leads from a model to its upstreams; an *exchange* is one request and its response; a
*dialect* is the API that a caller speaks; a *splice* is a body joined to a body. A *plan* has
*limits*, each a *bucket* or a *window*; a *reservation* is quota held for one request.

Layers, each importing only what stands above it in this list:

    config errors clock secret     values
    wire                           pure: HTTP/1.1 as octets and events
    translate quota                pure: bodies and dialects; limits and the ledger
    net store telemetry            fronts: sockets; SQLite and its journal; the access log
    accounts                       users and keys
    transfer                       installs that move, accounts from other relays
    pool                           policy: the upstreams that a request can go to
    gateway                        policy: one request
    api                            policy: the endpoints
    alerts                         policy: messages to the operator
    upkeep                         deletion, backups and alerts, beside the requests
    simulator                      the simulated upstream, for the demo, tests and bench
    app                            builds each object once; start and stop order
    process demo                   the process around it; the demo
    cli                            the command line

`gateway/relay.py` is the life of a request: read that first. `net/http1.py` hands it an
exchange, `net/upstream/splice.py` is its innermost loop.
"""

__version__ = "0.1.0"
