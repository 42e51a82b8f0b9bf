"""asyncio around `wire`: sockets in, sockets out.

`server` accepts connections and runs a handler per `exchange`, by a `drive` rather than a
task; `intake` collects a request's body; `client` and `pool` speak to upstreams; `splice`
joins an upstream's response body to an exchange; `timers` holds every deadline; `transport`
sets sockets. Nothing here knows about models, plans, keys or databases.
"""
