"""asyncio around `wire`: sockets in, sockets out.

`listener` accepts connections for a `server`. `http1` speaks the protocol and passes each request
to a handler as an `exchange`; a `runner` runs the handler without a task. `request_body` collects
a body within a limit. `upstream` is the other side: connections and their pool, response bodies,
and the splice that joins a body to an exchange. `deadlines` holds every deadline.

`tls` makes contexts and picks certificates by name; `certificate_source` says where they come from:
`certificate_files`, or an authority (`acme`). `prelude` reads the octets before HTTP.

Must not know models, plans, keys or databases.
"""
