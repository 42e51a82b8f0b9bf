"""asyncio around `wire`: sockets in, sockets out.

`listener` accepts connections for a `server`; `http1` speaks the protocol and hands each request
to a handler as an `exchange`, run by a `runner` in place of a task. `request_body` collects a
body within a limit. `upstream` has the other side: connections and their pool, the body of a
response, and the splice that joins it to an exchange. `deadlines` holds every deadline. Nothing
here knows about models, plans, keys or databases.
"""
