"""A relay on the test's own loop whose relay.toml can be rewritten and read again."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relay import config
from relay.app import App
from relay.reload import Reloader, Report
from tests.fakes.live import EMAIL, Live


@dataclass
class Reloading:
    """The relay, its file and its reloader."""

    live: Live
    path: Path
    reloader: Reloader
    tree: dict[str, Any]

    async def reload(self, **sections: Any) -> Report:
        """Change sections of the file and read it again."""
        self.tree.update(sections)
        self.path.write_text(toml(self.tree))
        return await self.reloader.reload()


@contextlib.asynccontextmanager
async def reloading(folder: Path, **sections: Any) -> AsyncIterator[Reloading]:
    """A relay with one account and one key."""
    path = folder / "relay.toml"
    tree: dict[str, Any] = {
        "server": {"listen": ["127.0.0.1:0"], "admin_listen": ""},
        "model": [{"id": "claude-sonnet-4-7"}],
        "plan": [{"id": "free", "max_keys": 10}],
        **sections,
    }
    path.write_text(toml(tree))
    settings = config.load(path)
    log_path = folder / "access.log"
    with log_path.open("ab", buffering=0) as log:
        app = await App.start(settings, log_fd=log.fileno())
        try:
            live = Live(app, settings, app.addresses[0], "", log_path, None)
            await live.create_user(EMAIL)
            live.key = await live.new_key(name="test")
            yield Reloading(live, path, Reloader(app, str(path)), tree)
        finally:
            await app.stop(0)


def toml(tree: dict[str, Any]) -> str:
    """Tables of plain values as TOML; a value's JSON is also its TOML, but for tables."""
    lines = []
    for name, section in tree.items():
        tables = section if isinstance(section, list) else [section]
        for table in tables:
            lines.append(f"[[{name}]]" if isinstance(section, list) else f"[{name}]")
            lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {_value(one)}" for key, one in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value)
