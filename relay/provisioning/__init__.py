"""The provisioning API, /api/v1: people, keys, plans, credit, usage and upstreams, for programs.

    problems     errors, all in one shape (RFC 9457)
    access       admin keys, scopes and rates
    call         one call: who makes it, its path, query and body
    views        what answers look like
    people, keys, money, upstreams, spend_limits    the endpoints
    routes       the table of all endpoints
    idempotency  a repeated POST gets the first answer again
    endpoint     one request, from its key to its answer
    openapi      the description of the API, from the table

The rules are those of `relay.accounts`. Must not know sockets or pages.
"""
