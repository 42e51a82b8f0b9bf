"""Portkey's AI gateway, on Node.js.

Decides its command line, and the fields by which a caller names the upstream: it has no settings
and no keys of its own, so that callers hold the upstream's. Must not know what is measured. With
releases of `@hono/node-server` after 1.13 its streams end in status 500, so an older one is
installed with it.
"""

from bench.rivals.program import Recipe

PORTKEY = Recipe(
    name="portkey",
    program="@portkey-ai/gateway/build/start-server.js",
    install=(
        "npm init -y && npm pkg set 'overrides[@hono/node-server]=1.13.8' && "
        "npm install @portkey-ai/gateway@1.15.2"
    ),
    argv=("node", "{program}", "--headless", "--port={port}"),
    version=("node", "-p", "require('{bin}/../package.json').version"),
    dialects=frozenset({"messages", "chat"}),
    fields={
        "x-portkey-provider": "anthropic",
        "x-portkey-custom-host": "http://127.0.0.1:{upstream_port}/v1",
        "x-portkey-forward-headers": "x-simulate",
    },
    # Node.js has this limit where a program sets no other.
    unable={"idle": "it closes connections that are idle for 5 s"},
    ready="/",
    ready_s=30.0,
)
