"""Debian's nginx, with one worker: the floor of what a proxy costs.

Decides its configuration. Must not know what is measured. It passes the Messages dialect on;
where relay translates, nginx carries the same turn in that dialect.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.certificate import Certificate, trusting
from bench.process import BenchError, free_ports, output
from bench.rivals.rival import UPSTREAM_KEY, Rival

# Fields of an answer that belong to the upstream and its account; relay passes none of them on.
HIDDEN = (
    "set-cookie",
    "cf-ray",
    "strict-transport-security",
    "x-envoy-upstream-service-time",
    "x-robots-tag",
    "anthropic-organization-id",
    *(
        f"anthropic-ratelimit-{kind}-{figure}"
        for kind in ("requests", "tokens", "input-tokens", "output-tokens")
        for figure in ("limit", "remaining", "reset")
    ),
)

# One worker that keeps its files in a folder of its own; "http" is still open.
_START = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 1000000000;
    keepalive_timeout 300s;
"""

_SETTINGS = (
    _START
    + """\
    access_log {folder}/access.log combined buffer=64k flush=1s;
    client_max_body_size 32m;
    # Buffered, a larger body than this would be written to a file, and read from it again.
    client_body_buffer_size 64k;
    proxy_request_buffering off;
    tcp_nodelay on;
    upstream origin {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
{certificate}
    proxy_http_version 1.1;
    proxy_read_timeout 600s;
    proxy_set_header Connection "";
    proxy_set_header Host 127.0.0.1:{upstream};
    proxy_set_header Authorization "";
    proxy_set_header x-api-key "{credential}";
    proxy_set_header Accept-Encoding identity;
{hidden}
    server {{
        listen 127.0.0.1:{json}{tls} backlog=4096;
        listen 127.0.0.1:{http2_json} http2 backlog=4096;
        location / {{ proxy_pass http://origin; }}
        location = /readyz {{ access_log off; return 200; }}
    }}
    server {{
        # Buffering would hold events back; without it nginx writes each one as it comes.
        listen 127.0.0.1:{sse}{tls} backlog=4096;
        listen 127.0.0.1:{http2_sse} http2 backlog=4096;
        location / {{ proxy_pass http://origin; proxy_buffering off; }}
    }}
}}
"""
)


_STATIC = (
    _START
    + """\
    access_log off;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        default_type application/json;
{fields}
        location / {{ return 200 '{body}'; }}
    }}
}}
"""
)
# nginx writes these itself.
_OWN = ("content-type", "content-length", "date", "server", "connection")


def static_settings(folder: Path, port: int, answer: bytes) -> str:
    """The configuration of an upstream that gives every request the same JSON answer."""
    head, _, body = answer.decode().partition("\r\n\r\n")
    fields = [line.split(": ", 1) for line in head.split("\r\n")[1:]]
    if "$" in answer.decode():
        raise BenchError("nginx would take a dollar in the answer for a variable")
    return _STATIC.format(
        folder=folder,
        port=port,
        user=_user(),
        fields="\n".join(
            f"        add_header {name} {_quoted(value)};"
            for name, value in fields
            if name.lower() not in _OWN
        ),
        body=_quoted(body)[1:-1],
    )


def _certificate(certificate: Certificate | None) -> str:
    if certificate is None:
        return ""
    return (
        f"    ssl_certificate {certificate.chain};\n"
        f"    ssl_certificate_key {certificate.key};\n"
        "    ssl_session_cache shared:tls:1m;"
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _user() -> str:
    """As root the worker would become `nobody`, who cannot write to the bench's folder."""
    return "user root;\n" if os.geteuid() == 0 else ""


class Nginx(Rival):
    """Debian's nginx with one worker."""

    name = "nginx"
    dialects = streams = frozenset({"messages"})
    plain = True

    def __init__(self, folder: Path, upstream: int, certificate: Certificate | None = None) -> None:
        super().__init__(folder)
        self.upstream = upstream
        program = nginx_program()
        if program is None:
            raise BenchError("nginx is not installed")
        self.program = program
        self.key = "sk-llmapi-nginx-does-not-look-at-it"
        self.json_port, self.sse_port, *http2 = free_ports(4)
        self.http2_ports = (http2[0], http2[1])
        self.version = output([program, "-v"]).rpartition("/")[2].strip()
        self.settings = _SETTINGS.format(
            folder=folder,
            hidden="\n".join(f"    proxy_hide_header {name};" for name in HIDDEN),
            user=_user(),
            upstream=upstream,
            credential=UPSTREAM_KEY,
            tls="" if certificate is None else " ssl http2",
            certificate=_certificate(certificate),
            json=self.json_port,
            sse=self.sse_port,
            http2_json=http2[0],
            http2_sse=http2[1],
        )
        (folder / "nginx.conf").write_text(self.settings)
        self.tls = None if certificate is None else trusting("http/1.1")

    def secured(self, folder: Path, certificate: Certificate) -> Rival:
        return Nginx(folder, self.upstream, certificate)

    def argv(self) -> Sequence[str]:
        folder = str(self.folder)
        return [self.program, "-p", folder, "-e", f"{folder}/error.log", "-c", "nginx.conf"]


def nginx_program() -> str | None:
    """Debian puts nginx where an ordinary user's PATH does not look."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
