"""The files that a relay.toml names, and a relay.toml that names them elsewhere.

Decides which settings are names of files, and keeps the rest of the text as it is, comments
included. Must not open any file.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any, Final

from relay.transfer import TransferError

_PATH_SETTING: Final = re.compile(
    r"server\.tls(\[\d+\])?\.(cert|key)|upstream\[\d+\]\.ca|acme\.ca|database\.path"
)
_FILE: Final = "file:"
_ENVIRONMENT: Final = "env:"
_QUOTED: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'')


def files(tree: dict[str, Any]) -> dict[str, str]:
    """The settings that name a file: dotted path → the file's name, as it is written.

    `database.path` is not among them.
    """
    found = {}
    for path, text in _strings(tree):
        if text.startswith(_FILE):
            found[path] = text[len(_FILE) :]
        elif _PATH_SETTING.fullmatch(path) and path != "database.path":
            found[path] = text
    return found


def environment(tree: dict[str, Any]) -> list[str]:
    """The names of the environment variables that hold secrets."""
    texts = [text for _, text in _strings(tree)]
    names = {text[len(_ENVIRONMENT) :] for text in texts if text.startswith(_ENVIRONMENT)}
    return sorted(names)


def _strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{path}[{number}]")


def renamed(text: str, names: dict[str, str]) -> str:
    """The text of a relay.toml with other names of files: `names`, old → new.

    Raises:
        TransferError: a name is written in a way that cannot be replaced safely.
    """

    def new_name(path: str, value: str) -> str:
        if value.startswith(_FILE):
            return _FILE + names.get(value[len(_FILE) :], value[len(_FILE) :])
        return names.get(value, value) if _PATH_SETTING.fullmatch(path) else value

    expected = _mapped(tomllib.loads(text), new_name)
    replaced = {**names, **{_FILE + old: _FILE + new for old, new in names.items()}}

    def token(match: re.Match[str]) -> str:
        try:
            value = tomllib.loads(f"value = {match[0]}")["value"]
        except tomllib.TOMLDecodeError:  # a part of a longer text
            return match[0]
        return json.dumps(replaced[value]) if value in replaced else match[0]

    result = _QUOTED.sub(token, text)
    if tomllib.loads(result) != expected:
        raise TransferError(
            "relay.toml: the names of files cannot be replaced; write each in plain quotes, and "
            "use it for nothing else"
        )
    return result


def _mapped(value: Any, change: Callable[[str, str], str], path: str = "") -> Any:
    if isinstance(value, str):
        return change(path, value)
    if isinstance(value, dict):
        return {
            name: _mapped(inner, change, f"{path}.{name}" if path else name)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_mapped(inner, change, f"{path}[{index}]") for index, inner in enumerate(value)]
    return value
