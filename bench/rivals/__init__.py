"""What is measured: nginx and relay, each in front of the same upstream.

Decides how a rival is configured, started and made ready, so that both do the same work: they
set the upstream's credential, remove the caller's, drop what speaks of the upstream's account
from the answer, keep connections alive on both sides and write an access log. Must not know
what is measured.
"""

import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, TimeoutExpired, run

import orjson

from bench.dialects import MODEL
from bench.process import BenchError, Process, free_ports

UPSTREAM_KEY = "sim-key"
_PLAN = "bench"
_EMAIL = "bench@example.com"
_COMMAND_WAIT_S = 20.0

# What the upstream says of itself and of its account; relay passes none of it on.
_HIDDEN = (
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

_NGINX_CONF = """\
daemon off;
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log {folder}/access.log combined buffer=64k flush=1s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 32m;
    client_body_buffer_size 64k;
    keepalive_timeout 300s;
    keepalive_requests 1000000000;
    tcp_nodelay on;
    upstream origin {{
        server 127.0.0.1:{upstream};
        keepalive 1024;
        keepalive_requests 1000000000;
        keepalive_timeout 300s;
    }}
    proxy_http_version 1.1;
    proxy_read_timeout 600s;
    proxy_set_header Connection "";
    proxy_set_header Host 127.0.0.1:{upstream};
    proxy_set_header Authorization "";
    proxy_set_header x-api-key "{credential}";
    proxy_set_header Accept-Encoding identity;
{hidden}
    server {{
        listen 127.0.0.1:{json} backlog=4096;
        location / {{ proxy_pass http://origin; }}
        location = /readyz {{ access_log off; return 200; }}
    }}
    server {{
        # Buffering would hold events back; without it nginx writes each one as it comes.
        listen 127.0.0.1:{sse} backlog=4096;
        location / {{ proxy_pass http://origin; proxy_buffering off; }}
    }}
}}
"""

_RELAY_UPSTREAM = """\
[[upstream]]
name = "simulated-{number}"
base_url = "http://127.0.0.1:{upstream}"
api_key = "{credential}"
auth = "x-api-key"
"""

_RELAY_TOML = """\
[server]
listen = ["127.0.0.1:{port}"]
public_url = "http://127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin}"

[database]
path = "{folder}/relay.db"

{upstreams}
[[model]]
id = "{model}"
display_name = "Claude Sonnet 4.7"
context_window = 1000000
max_output_tokens = 128000

[[plan]]
id = "{plan}"
name = "Bench"
limits = [
  {{ requests = 1000000000, per = "5h" }}, {{ requests = 1000000000, per = "7d" }},
  {{ requests = 1000000000, per = "1m" }}, {{ tokens = 1000000000000, per = "1m" }},
]
max_keys = 3
"""


class Rival(ABC):
    """One proxy with its configuration; it can be started many times."""

    name: str
    translates: bool  # takes other dialects than its upstream's
    version: str
    key: str
    json_port: int
    sse_port: int

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def argv(self) -> Sequence[str]:
        """The command that runs this proxy in the foreground."""

    def start(self, core: int) -> tuple[Process, float]:
        """A running proxy that answers, and the seconds it took."""
        process = Process(self.name, self.argv(), core, self.folder / "error.log")
        try:
            return process, process.ready(self.json_port, "/readyz")
        except BaseException:
            process.stop()
            raise


class Nginx(Rival):
    """Debian's nginx with one worker."""

    name = "nginx"
    translates = False

    def __init__(self, folder: Path, upstream: int) -> None:
        super().__init__(folder)
        program = nginx_program()
        if program is None:
            raise BenchError("nginx is not installed")
        self.program = program
        self.key = "sk-llmapi-nginx-does-not-look-at-it"
        self.json_port, self.sse_port = free_ports(2)
        self.version = _output([program, "-v"]).rpartition("/")[2].strip()
        (folder / "nginx.conf").write_text(
            _NGINX_CONF.format(
                folder=folder,
                hidden="\n".join(f"    proxy_hide_header {name};" for name in _HIDDEN),
                # As root the worker would become `nobody`, who cannot write to this folder.
                user="user root;\n" if os.geteuid() == 0 else "",
                upstream=upstream,
                credential=UPSTREAM_KEY,
                json=self.json_port,
                sse=self.sse_port,
            )
        )

    def argv(self) -> Sequence[str]:
        folder = str(self.folder)
        return [self.program, "-p", folder, "-e", f"{folder}/error.log", "-c", "nginx.conf"]


class Relay(Rival):
    """This project, with a database, a plan and one key of its own."""

    name = "relay"
    translates = True

    def __init__(self, folder: Path, upstream: int, upstreams: int = 1) -> None:
        super().__init__(folder)
        port, admin = free_ports(2)
        listed = [
            _RELAY_UPSTREAM.format(number=number, upstream=upstream, credential=UPSTREAM_KEY)
            for number in range(1, upstreams + 1)
        ]
        self.json_port = self.sse_port = port
        self.config = folder / "relay.toml"
        self.profile: Path | None = None
        self.config.write_text(
            _RELAY_TOML.format(
                folder=folder,
                port=port,
                admin=admin,
                upstreams="\n".join(listed),
                model=MODEL,
                plan=_PLAN,
            )
        )
        options = ["--config", str(self.config)]
        self.version = f"Python {sys.version.split()[0]}"
        _output([*relay_command(), "user", "create", _EMAIL, "--plan", _PLAN, *options])
        made = _output([*relay_command(), "key", "create", "--user", _EMAIL, "--json", *options])
        try:
            self.key = str(orjson.loads(made)["key"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise BenchError(f"`relay key create --json` printed no key: {made[:300]}") from None

    def argv(self) -> Sequence[str]:
        command = relay_command()
        if self.profile is not None:
            command = [sys.executable, "-m", "cProfile", "-o", str(self.profile), *command[-1:]]
        return [*command, "serve", "--config", str(self.config)]


def relay_command() -> list[str]:
    """The `relay` that is installed beside the Python that runs the bench."""
    beside = Path(sys.executable).parent / "relay"
    if not beside.exists():
        raise BenchError(f"{beside} is missing: install the project first (`make bench` does)")
    return [sys.executable, str(beside)]


def nginx_program() -> str | None:
    """Debian puts nginx where an ordinary user's PATH does not look."""
    return shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def start_upstream(folder: Path, core: int) -> tuple[Process, int]:
    """The simulated upstream, on the core of the load, and its port."""
    (port,) = free_ports(1)
    argv = [*relay_command(), "simulate", "--port", str(port)]
    process = Process("relay simulate", argv, core, folder / "upstream.err")
    try:
        process.ready(port, "/")
    except BaseException:
        process.stop()
        raise
    return process, port


def start_replay(folder: Path, core: int, answer: bytes) -> tuple[Process, int]:
    """An upstream that always gives this answer, and its port."""
    (port,) = free_ports(1)
    recorded = folder / "answer.http"
    recorded.write_bytes(answer)
    program = str(Path(__file__).parents[1] / "replay.py")
    argv = [sys.executable, "-P", program, str(port), str(recorded)]
    process = Process("replay", argv, core, folder / "replay.err")
    try:
        process.ready(port, "/")
    except BaseException:
        process.stop()
        raise
    return process, port


def _output(argv: Sequence[str]) -> str:
    """What a short command prints; nginx -v prints on standard error."""
    try:
        done = run(argv, stdin=DEVNULL, capture_output=True, text=True, timeout=_COMMAND_WAIT_S)
    except (OSError, TimeoutExpired) as error:
        raise BenchError(f"{' '.join(argv)}: {error}") from None
    if done.returncode:
        raise BenchError(
            f"{' '.join(argv)} ended with status {done.returncode}:\n{done.stderr or done.stdout}"
        )
    return done.stdout or done.stderr
