"""Clients of the relay, as their users set them up."""

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anthropic
import pytest

from tests.fakes.live import Live

# Making one costs more than most of the tests.
TRUST = ssl.create_default_context()

Connect = Callable[..., anthropic.AsyncAnthropic]


@pytest.fixture
async def connect(live: Live) -> AsyncIterator[Connect]:
    """Make `AsyncAnthropic` clients of the relay; `options` are those of the class."""
    made: list[anthropic.AsyncAnthropic] = []

    def connect(**options: object) -> anthropic.AsyncAnthropic:
        client = anthropic.AsyncAnthropic(
            **{  # type: ignore[arg-type]
                "api_key": live.key,
                "base_url": live.url,
                "max_retries": 0,
                "timeout": 10,
                "http_client": anthropic.DefaultAsyncHttpxClient(verify=TRUST),
                **options,
            }
        )
        made.append(client)
        return client

    yield connect
    for client in made:
        await client.close()


@pytest.fixture
def sdk(connect: Connect) -> anthropic.AsyncAnthropic:
    """The client with the relay's key, as its documentation shows it."""
    return connect()


# --- clients from the npm registry --------------------------------------------------

_HERE = Path(__file__).parent
_FOLDER = _HERE / "node"  # git-ignored; made anew whenever the lock file changes
_PINS = ("package.json", "package-lock.json")
_PATIENCE = 120  # seconds for the one installation
_UNREACHABLE = (
    "ENOTFOUND",
    "EAI_AGAIN",
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "ENETUNREACH",
    "EHOSTUNREACH",
)


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The clients that package-lock.json pins, installed once."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pins = b"".join((_HERE / name).read_bytes() for name in _PINS)
    stamp = _FOLDER / "installed"
    if not stamp.is_file() or stamp.read_bytes() != pins:
        _FOLDER.mkdir(exist_ok=True)
        for name in _PINS:
            shutil.copy(_HERE / name, _FOLDER)
        _install(_FOLDER)
        stamp.write_bytes(pins)
    return _FOLDER / "node_modules"


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            [*command, "--fetch-retries=1"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry did not deliver within {_PATIENCE} s")
    if done.returncode:
        if any(sign in done.stderr for sign in _UNREACHABLE):
            pytest.skip("the npm registry cannot be reached")
        pytest.fail(f"npm ci failed:\n{done.stderr[-2000:]}")
