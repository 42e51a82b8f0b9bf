"""Caddy: a plain proxy in Go.

Decides its configuration. Must not know what is measured. Go's runtime takes as many threads as
it has cores, here one. Answers are flushed at once, as Caddy's manual recommends for streams.
"""

from bench.rivals.nginx import HIDDEN
from bench.rivals.program import Recipe

_SETTINGS = """\
{
    admin off
    auto_https off
    servers {
        protocols h1 h2c
    }
}

http://127.0.0.1:{port}, http://127.0.0.1:{http2_port} {
    bind 127.0.0.1
    log {
        output file {folder}/access.log
    }
    respond /readyz 200
    reverse_proxy 127.0.0.1:{upstream_port} {
        flush_interval -1
        header_up -authorization
        header_up x-api-key {upstream_key}
%s
        transport http {
            keepalive_idle_conns_per_host 1024
        }
    }
}
"""

CADDY = Recipe(
    name="caddy",
    program="caddy",
    install="apt-get install caddy",
    argv=("{program}", "run", "--config", "{folder}/Caddyfile", "--adapter", "caddyfile"),
    version=("{program}", "version"),
    files={"Caddyfile": _SETTINGS % "\n".join(f"        header_down -{name}" for name in HIDDEN)},
    environment={"XDG_CONFIG_HOME": "{folder}", "XDG_DATA_HOME": "{folder}"},
    dialects=frozenset({"messages"}),
    plain=True,
    http2=True,
)
