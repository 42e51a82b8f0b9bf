"""This project as a rival: the tree that the bench is in, and any other build of it.

Decides how a build is run, and the configuration and the account that a run needs. A build is a
Python and the folder from which it imports `relay`: an older checkout, a compiled copy, another
interpreter. All get the same settings and a database each. Must not know what is measured.
"""

import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import orjson

from bench.certificate import Certificate, trusting
from bench.dialects import MODEL
from bench.process import BenchError, free_ports, output
from bench.rivals.rival import UPSTREAM_KEY, Rival

# The tree that this bench is part of.
TREE = Path(__file__).parents[2]
# `-P`: the working directory must not stand in for the tree.
_MODULE = ("-P", "-m", "relay")
RELAY = (sys.executable, *_MODULE)
_SUFFIX = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
_FOUND = "import sys, relay; print(sys.version.split()[0], relay.__file__)"
_LONGEST = re.compile(r"^relay_loop_lag_longest_seconds (\S+)$", re.MULTILINE)
PLAN = "bench"
SMALL_PLAN = "small"
SMALL_PLAN_REQUESTS = 40
_EMAIL = "bench@example.com"
_NAME = re.compile(r"\w[\w.+-]*")  # also that of a folder

_UPSTREAM = """\
[[upstream]]
name = "simulated-{number}"
base_url = "http://127.0.0.1:{upstream}"
api_key = "{credential}"
auth = "x-api-key"
"""

_SETTINGS = """\
[server]
listen = ["127.0.0.1:{port}"]
public_url = "{scheme}://127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin}"
{tls}
[server.limits]
in_flight = 65536
in_flight_per_key = 0

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

[[plan]]
id = "{small}"
name = "Small"
limits = [{{ requests = {requests}, per = "5h" }}]
max_keys = 3
"""


@dataclass(frozen=True, slots=True)
class Build:
    """A relay to run: `path` is its PYTHONPATH, empty for the relay installed in `python`."""

    name: str
    python: str = sys.executable
    path: str = ""

    @property
    def command(self) -> Sequence[str]:
        """The command `relay` of this build."""
        return (self.python, *_MODULE)

    def environment(self) -> Mapping[str, str]:
        """The bench's own environment, but `relay` is imported from `path`."""
        return environment(self.path)

    def found(self) -> "Found":
        """How it runs.

        Raises:
            BenchError: it does not, or `relay` is not imported from `path`.
        """
        text = self._print(_FOUND)
        python, _, file = text.partition(" ")
        package = Path(file).parent
        folders = [Path(folder).resolve() for folder in self.path.split(":") if folder]
        if folders and package.parent.resolve() not in folders:
            raise BenchError(f"{self.path} is no checkout of relay: `import relay` finds {file}")
        suffix = self._print(_SUFFIX)
        return Found(python, package, any(package.rglob(f"*{suffix}")))

    def _print(self, script: str) -> str:
        if shutil.which(self.python) is None:
            raise BenchError(f"{self.name}: there is no interpreter {self.python}")
        return output([self.python, "-P", "-c", script], self.environment()).strip()


@dataclass(frozen=True, slots=True)
class Found:
    """How a build runs: the version of its Python, its package, and whether that is compiled."""

    python: str
    package: Path
    compiled: bool


THIS = Build("relay", path=str(TREE))


def checkout(path: Path) -> Build:
    """An older version of this project, from the checkout at `path`."""
    return Build("before", path=str(path.resolve()))


def _builds(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[Build, ...]:
    """`NAME=PYTHON[:PYTHONPATH]` → builds; names are unique."""
    builds: list[Build] = []
    for value in values:
        name, _, rest = value.partition("=")
        python, _, path = rest.partition(":")
        if not _NAME.fullmatch(name) or not python:
            raise click.BadParameter(f"{value!r} is no NAME=PYTHON[:PYTHONPATH]")
        if name in {"direct", "nginx", *(build.name for build in builds)}:
            raise click.BadParameter(f"the name {name!r} is taken")
        folders = [os.path.abspath(folder) for folder in path.split(":") if folder]
        builds.append(Build(name, python, ":".join(folders)))
    return tuple(builds)


build_option = click.option(
    "--relay",
    "builds",
    multiple=True,
    callback=_builds,
    metavar="NAME=PYTHON[:PYTHONPATH]",
    help="A build of the relay: the Python that runs it, and the folder with its package "
    "`relay` if that is not installed there. May be repeated.",
)


class Relay(Rival):
    """A relay with a database, a plan and one key of its own."""

    dialects = streams = frozenset({"messages", "chat", "responses"})

    def __init__(
        self,
        folder: Path,
        upstream: int,
        upstreams: int = 1,
        build: Build = THIS,
        certificate: Certificate | None = None,
    ) -> None:
        super().__init__(folder)
        self.name = build.name
        self.build = build
        self.upstream = upstream
        self.upstreams = upstreams
        self.tls = None if certificate is None else trusting("http/1.1")
        self.grown: dict[str, Relay] = {}  # the same build with other databases, by folder
        self.profile: Path | None = None  # where a profile of the next process goes
        port, admin = free_ports(2)
        self.json_port = self.sse_port = port
        self.http2_ports = (port, port)
        self.settings = _SETTINGS.format(
            folder=folder,
            port=port,
            admin=admin,
            scheme="http" if certificate is None else "https",
            tls=_tls(certificate),
            small=SMALL_PLAN,
            requests=SMALL_PLAN_REQUESTS,
            upstreams="\n".join(
                _UPSTREAM.format(number=number, upstream=upstream, credential=UPSTREAM_KEY)
                for number in range(1, upstreams + 1)
            ),
            model=MODEL,
            plan=PLAN,
        )
        self.config = folder / "relay.toml"
        self.config.write_text(self.settings)
        self.version = _version(build)
        self.key = self.new_key(_EMAIL, PLAN)

    def secured(self, folder: Path, certificate: Certificate) -> Rival:
        return Relay(folder, self.upstream, self.upstreams, self.build, certificate)

    def new_key(self, email: str, plan: str) -> str:
        """The key of a new account."""
        self.run("user", "create", email, "--plan", plan)
        created = self.run("key", "create", "--user", email, "--json")
        try:
            return str(orjson.loads(created)["key"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise BenchError(f"`relay key create --json` printed no key: {created[:300]}") from None

    @property
    def database(self) -> Path:
        return self.folder / "relay.db"

    def argv(self) -> Sequence[str]:
        command = self.build.command
        if self.profile is not None:
            profiler = ("-m", "cProfile", "-o", str(self.profile))
            command = (*command[:2], *profiler, *command[2:])
        return [*command, *self.serve()]

    def serve(self) -> Sequence[str]:
        """The arguments of the command `relay`."""
        return ("serve", "--config", str(self.config))

    def environment(self) -> Mapping[str, str]:
        return self.build.environment()

    def own_figures(self) -> Mapping[str, float]:
        """How long the event loop was late at most, since the process started."""
        found = _LONGEST.search(self.run("metrics"))
        return {"stall_ms": float(found[1]) * 1e3} if found else {}

    def run(self, *arguments: str) -> str:
        """The output of a command of this build."""
        argv = [*self.build.command, *arguments, "--config", str(self.config)]
        return output(argv, self.environment())


def _tls(certificate: Certificate | None) -> str:
    if certificate is None:
        return ""
    return f'tls = {{ cert = "{certificate.chain}", key = "{certificate.key}" }}\n'


def machine_name() -> str:
    """The architecture and the C library: both decide the number of instructions."""
    return " ".join((os.uname().machine, *platform.libc_ver())).strip()


def environment(path: str) -> Mapping[str, str]:
    """The bench's own environment with this PYTHONPATH; with none if it is empty."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**variables, "PYTHONPATH": path} if path else variables


def _version(build: Build) -> str:
    """Python's version, that of relay, and the commit where its tree is a Git checkout."""
    found = build.found()
    relay = output([*build.command, "--version"], build.environment()).strip()
    try:
        commit = output(["git", "-C", str(found.package.parent), "describe", "--always", "--dirty"])
    except BenchError:
        commit = ""  # an unpacked archive, or no Git
    form = ", compiled" if found.compiled else ""
    return f"Python {found.python}, {relay}{form} {commit}".strip()
