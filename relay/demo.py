"""Servers to try the relay with: the simulated upstream alone, or with a relay in front of it.

Decides the demo's settings and the lines that it prints. Keeps nothing past the process.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from relay import config
from relay.accounts import keys, users
from relay.app import App
from relay.config import Settings
from relay.net.deadlines import Deadlines
from relay.net.descriptors import raise_limit
from relay.net.listener import listen
from relay.net.server import Server
from relay.process import Signals, announce
from relay.simulator.app import Simulator
from relay.store.keys import live_keys
from relay.telemetry.error_log import queued_stderr

_USER: Final = "demo@relay.example"
_LIMITS: Final = [
    config.LimitSettings(requests=3_000, per=config.Duration("5h")),
    config.LimitSettings(requests=15_000, per=config.Duration("7d")),
    config.LimitSettings(requests=600, per=config.Duration("1m")),
    config.LimitSettings(tokens=8_000_000, per=config.Duration("1m")),
]
_INSTRUCTIONS: Final = """\
The relay runs at {url} with a simulated upstream behind it. Ctrl-C ends both.

Paste this into another terminal:

curl -N {url}/v1/messages -H 'x-api-key: {key}' -H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' -d '{{"model": "{model}", "max_tokens": 200, "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

Or, as OpenAI clients do:

curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'content-type: application/json' -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'

curl -N {url}/v1/responses -H 'Authorization: Bearer {key}' -H 'content-type: application/json' -d '{{"model": "{model}", "stream": true, "input": "Hello!"}}'

Or let Claude Code or Codex CLI use it:

ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key} claude --model {model}

codex -c 'model_providers.relay={{name="Relay",base_url="{url}/v1",wire_api="responses",auth={{command="echo",args=["{key}"]}}}}' -c model_provider=relay -m {model}
"""  # noqa: E501 - the lines are to be pasted


def run_simulator(host: str, port: int) -> int:
    """Run the simulated upstream until a signal; returns the exit status.

    Raises:
        OSError: the address cannot be bound.
    """
    with queued_stderr():
        uvloop.run(_run_simulator(host, port))
    return 0


async def _run_simulator(host: str, port: int) -> None:
    signals = Signals()
    timers = Deadlines(asyncio.get_running_loop())
    server = Server(Simulator().handle, timers)
    signals.abort = server.abort
    bound = await listen(server, host, port)
    timers.start()
    announce(f"relay simulate listens on http://{host}:{bound}")
    await signals.wait()
    await server.drain(1.0)
    timers.stop()


def run_demo(settings: Settings, port: int | None) -> int:
    """Run a simulated upstream and a relay with one key until a signal.

    `port` is the relay's, None: that of `settings`, or another one if it is taken. Returns
    the exit status.

    Raises:
        OSError: the port cannot be bound.
    """
    with queued_stderr(), tempfile.TemporaryDirectory(prefix="relay-demo-") as folder:
        raise_limit()
        uvloop.run(_run_demo(settings, Path(folder), port))
    return 0


async def _run_demo(settings: Settings, folder: Path, port: int | None) -> None:
    signals = Signals()
    timers = Deadlines(asyncio.get_running_loop())
    upstream = Server(Simulator().handle, timers)
    upstream_port = await listen(upstream)
    timers.start()
    adapted = _settings(settings, folder, upstream_port, port)
    try:
        app = await App.start(adapted)
    except OSError:
        if port is not None:
            raise
        print(f"{adapted.server.listen[0]} is taken, so the demo takes another port.\n")
        adapted = _settings(settings, folder, upstream_port, 0)
        app = await App.start(adapted)
    key = await _create_key(app, adapted)
    url, model = app.addresses[0], adapted.model[0].id
    print(_INSTRUCTIONS.format(url=url, key=key, model=model), flush=True)
    signals.abort = app.server.abort
    await signals.wait()
    await app.stop(5.0)
    await upstream.drain(0)
    timers.stop()


async def _create_key(app: App, settings: Settings) -> str:
    now = time.time()
    await users.create(app.database, settings, _USER, plan=None, is_admin=False, now=now)
    issued = await keys.create(app.database, settings, _USER, keys.KeyOptions("demo"), now=now)
    app.keys.replace(await live_keys(app.database))
    return issued.key.reveal()


def _settings(settings: Settings, folder: Path, upstream_port: int, port: int | None) -> Settings:
    """The user's settings with the simulated upstream, a plan and a database for the demo."""
    simulated = config.UpstreamSettings(
        name="simulated", base_url=f"http://127.0.0.1:{upstream_port}", api_key="sim-key"
    )
    server = settings.server
    if port is not None:
        server = msgspec.structs.replace(server, listen=[config.Address.tcp("127.0.0.1", port)])
    models = [msgspec.structs.replace(model, routes=None) for model in settings.model] or [
        config.ModelSettings(
            id="claude-sonnet-4-7",
            display_name="Claude Sonnet 4.7",
            aliases=["claude-*"],  # whatever Claude Code asks for
        )
    ]
    return msgspec.structs.replace(
        settings,
        server=msgspec.structs.replace(
            server, tls=None, admin_listen=config.AdminAddress(""), workers=1
        ),
        database=config.DatabaseSettings(path=str(folder / "demo.db")),
        log=config.LogSettings(access=False),
        upstream=[simulated],
        model=models,
        plan=[config.PlanSettings(id="demo", name="Demo", limits=_LIMITS)],
    )
