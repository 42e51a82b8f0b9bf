"""This project as a rival: from the tree that the bench is in, or from an older checkout.

Decides how a tree is run, and the configuration and the account that a run needs. Both trees
get the same interpreter, the same settings and a database each. Must not know what is measured.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from bench.dialects import MODEL
from bench.process import BenchError, free_ports, output
from bench.rivals.rival import UPSTREAM_KEY, Rival

# The tree that this bench is part of.
TREE = Path(__file__).parents[2]
# `-P`: the working directory must not stand in for the tree.
RELAY = (sys.executable, "-P", "-m", "relay")
_PLAN = "bench"
_EMAIL = "bench@example.com"

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


class Relay(Rival):
    """A relay with a database, a plan and one key of its own."""

    name = "relay"
    dialects = frozenset({"messages", "chat", "responses"})

    def __init__(self, folder: Path, upstream: int, upstreams: int = 1, tree: Path = TREE) -> None:
        super().__init__(folder)
        self.tree = tree
        self.profile: Path | None = None  # where a profile of the next process goes
        port, admin = free_ports(2)
        self.json_port = self.sse_port = port
        self.http2_ports = (port, port)
        self.settings = _SETTINGS.format(
            folder=folder,
            port=port,
            admin=admin,
            upstreams="\n".join(
                _UPSTREAM.format(number=number, upstream=upstream, credential=UPSTREAM_KEY)
                for number in range(1, upstreams + 1)
            ),
            model=MODEL,
            plan=_PLAN,
        )
        self.config = folder / "relay.toml"
        self.config.write_text(self.settings)
        self.version = _version(tree)
        self._run("user", "create", _EMAIL, "--plan", _PLAN)
        created = self._run("key", "create", "--user", _EMAIL, "--json")
        try:
            self.key = str(orjson.loads(created)["key"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise BenchError(f"`relay key create --json` printed no key: {created[:300]}") from None

    def argv(self) -> Sequence[str]:
        command: Sequence[str] = RELAY
        if self.profile is not None:
            profiler = ("-m", "cProfile", "-o", str(self.profile))
            command = (*RELAY[:2], *profiler, *RELAY[2:])
        return [*command, "serve", "--config", str(self.config)]

    def environment(self) -> Mapping[str, str]:
        return environment(self.tree)

    def _run(self, *arguments: str) -> str:
        argv = [*RELAY, *arguments, "--config", str(self.config)]
        return output(argv, environment(self.tree))


class Before(Relay):
    """An older version of this project, from a checkout at `tree`."""

    name = "before"


def environment(tree: Path) -> Mapping[str, str]:
    """The bench's own environment, but `relay` is imported from `tree`."""
    return {**os.environ, "PYTHONPATH": str(tree)}


def checkout(path: Path) -> Path:
    """The absolute path of a tree that has a relay.

    Raises:
        BenchError: `relay` would not be imported from there.
    """
    tree = path.resolve()
    script = "import relay; print(relay.__file__)"
    found = output([sys.executable, "-P", "-c", script], environment(tree)).strip()
    if not Path(found).is_relative_to(tree):
        raise BenchError(f"{path} is no checkout of relay: `import relay` finds {found}")
    return tree


def _version(tree: Path) -> str:
    """Python's version, and the commit where the tree is a Git checkout."""
    try:
        described = output(["git", "-C", str(tree), "describe", "--always", "--dirty"])
    except BenchError:
        described = ""  # an unpacked archive, or no Git
    return f"Python {sys.version.split()[0]} {described}".strip()
