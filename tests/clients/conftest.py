"""Clients of the relay, set up as their documentation says."""

import contextlib
import fcntl
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.live import Live

# Creating a TLS context takes longer than most of the tests.
TRUST = ssl.create_default_context()

Connect = Callable[..., anthropic.AsyncAnthropic]
ConnectOpenAI = Callable[..., openai.AsyncOpenAI]


@pytest.fixture
async def connect(live: Live) -> AsyncIterator[Connect]:
    """Make `AsyncAnthropic` clients of the relay; `options` are those of the class."""
    made: list[anthropic.AsyncAnthropic] = []

    def connect(**options: object) -> anthropic.AsyncAnthropic:
        arguments: dict[str, Any] = {
            "api_key": live.key,
            "base_url": live.url,
            "max_retries": 0,
            "timeout": 10,
            "http_client": anthropic.DefaultAsyncHttpxClient(verify=TRUST),
            **options,
        }
        client = anthropic.AsyncAnthropic(**arguments)
        made.append(client)
        return client

    yield connect
    for client in made:
        await client.close()


@pytest.fixture
def sdk(connect: Connect) -> anthropic.AsyncAnthropic:
    """The client with the relay's key, as its documentation shows it."""
    return connect()


@pytest.fixture
async def connect_openai(live: Live) -> AsyncIterator[ConnectOpenAI]:
    """Make `AsyncOpenAI` clients of the relay; `options` are those of the class."""
    made: list[openai.AsyncOpenAI] = []

    def connect(**options: object) -> openai.AsyncOpenAI:
        client = openai_client(live, **options)
        made.append(client)
        return client

    yield connect
    for client in made:
        await client.close()


def openai_client(relay: Live, **options: object) -> openai.AsyncOpenAI:
    """A client of this relay without retries."""
    arguments: dict[str, Any] = {
        "api_key": relay.key,
        "base_url": f"{relay.url}/v1",
        "max_retries": 0,
        "timeout": 10,
        "http_client": openai.DefaultAsyncHttpxClient(verify=TRUST),
        **options,
    }
    return openai.AsyncOpenAI(**arguments)


@pytest.fixture
def gpt(connect_openai: ConnectOpenAI) -> openai.AsyncOpenAI:
    """The OpenAI client with the relay's key, as its documentation shows it."""
    return connect_openai()


# --- clients from the npm registry --------------------------------------------------

_HERE = Path(__file__).parent
_FOLDER = _HERE / "node"  # git-ignored; rebuilt whenever the lock file changes
_PINS = ("package.json", "package-lock.json")
_INSTALL_TIMEOUT = 600  # seconds for the one installation
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
    """The clients pinned in package-lock.json, installed once."""
    return npm_modules(_HERE, _FOLDER)


def npm_modules(source: Path, folder: Path) -> Path:
    """The folder's node_modules with the pins of `source`, installed once."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    pins = b"".join((source / name).read_bytes() for name in _PINS)
    stamp = folder / "installed"
    with _one_at_a_time("-".join(folder.relative_to(_HERE).parts)):
        if not stamp.is_file() or stamp.read_bytes() != pins:
            folder.mkdir(exist_ok=True)
            if source != folder:
                for name in _PINS:
                    shutil.copy(source / name, folder)
            _install(folder)
            stamp.write_bytes(pins)
    return folder / "node_modules"


@contextlib.contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """A lock between the processes of a parallel run, which share the installation."""
    with (Path(tempfile.gettempdir()) / f"relay-tests-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path) -> None:
    command = ["npm", "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            [*command, "--fetch-retries=1"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"the npm registry did not deliver within {_INSTALL_TIMEOUT} s")
    if done.returncode:
        if any(sign in done.stderr for sign in _UNREACHABLE):
            pytest.skip("the npm registry cannot be reached")
        pytest.fail(f"npm ci failed:\n{done.stderr[-2000:]}")


# --- clients from PyPI, each in an environment of its own ---------------------------

_PIP_OPTIONS = ("--quiet", "--disable-pip-version-check", "--retries=1", "--timeout=20")
_OFFLINE = (
    "Failed to establish a new connection",
    "Temporary failure in name resolution",
    "Name or service not known",
    "Network is unreachable",
    "Connection refused",
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ReadTimeoutError",
)


@pytest.fixture(scope="session")
def litellm_python() -> Path:
    """The interpreter of LiteLLM's environment."""
    return environment("litellm")


@pytest.fixture(scope="session")
def hermes() -> Path:
    """The program of Hermes Agent."""
    return environment("hermes").with_name("hermes")


def environment(name: str) -> Path:
    """The interpreter of an environment with the pins of a requirements.lock, created once."""
    lock = _HERE / name / "requirements.lock"
    if not lock.is_file():
        pytest.skip(f"{lock.relative_to(_HERE)} is not there: make lock")
    folder = _HERE / name / ".venv"  # git-ignored; rebuilt whenever the lock file changes
    stamp = folder / "installed"
    python = folder / "bin" / "python"
    with _one_at_a_time(name.replace("/", "-")):
        if not stamp.is_file() or stamp.read_bytes() != lock.read_bytes():
            _make([sys.executable, "-m", "venv", "--clear", folder])
            _make([python, "-m", "pip", "install", *_PIP_OPTIONS, "--require-hashes", "-r", lock])
            stamp.write_bytes(lock.read_bytes())
    return python


def _make(command: list[str | Path]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT,
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"PyPI did not deliver within {_INSTALL_TIMEOUT} s")
    if done.returncode:
        if any(sign in done.stderr for sign in _OFFLINE):
            pytest.skip("PyPI cannot be reached")
        pytest.fail(f"{command[0]} failed:\n{done.stderr[-2000:]}")
