"""HAProxy: a plain proxy, one thread.

Decides its configuration. Must not know what is measured. Connections to the upstream are shared
by callers, as its manual recommends for a server of one's own, and lines of the access log go to
the standard output.
"""

from bench.rivals.nginx import HIDDEN
from bench.rivals.program import Recipe

_SETTINGS = """\
global
    nbthread 1
    log stdout format raw local0

defaults
    mode http
    log global
    option httplog
    option http-no-delay
    http-reuse always
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 300s

frontend callers
    bind 127.0.0.1:{port} backlog 4096
    bind 127.0.0.1:{http2_port} proto h2 backlog 4096
    http-request return status 200 if { path /readyz }
    http-request del-header authorization
    http-request set-header x-api-key {upstream_key}
%s
    default_backend origin

backend origin
    server upstream 127.0.0.1:{upstream_port} pool-max-conn 1024
"""

HAPROXY = Recipe(
    name="haproxy",
    program="haproxy",
    install="apt-get install haproxy",
    argv=("{program}", "-f", "{folder}/haproxy.cfg"),
    version=("{program}", "-v"),
    files={
        "haproxy.cfg": _SETTINGS
        % "\n".join(f"    http-response del-header {name}" for name in HIDDEN)
    },
    dialects=frozenset({"messages"}),
    plain=True,
    http2=True,
)
