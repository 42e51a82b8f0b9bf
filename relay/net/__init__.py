"""asyncio around `wire`: sockets in, sockets out.

`server` accepts connections and runs one task per `exchange`; `client` and `pool` speak to
upstreams; `splice` joins an upstream's response body to an exchange; `timers` holds every
deadline. Nothing here knows about models, plans, keys or databases.
"""
