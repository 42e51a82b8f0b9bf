"""Puts the table of clients and the settings into the templates of the two scripts.

Decides how a value becomes a text of the shell and of PowerShell: whatever it is, it stays one
text. Must not know requests.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from relay.config import Settings
from relay.web.set_up.clients import Client, Edit, File, choose_models, clients

_FOLDER: Final = Path(__file__).parent
_PLACE: Final = re.compile(r"@([a-z_]+)@")
_MARK: Final = re.compile("\x01([a-z_]+)\x01|(\x1e)")
# PowerShell ends a text at curved quotation marks, too.
_PS_QUOTE: Final = re.compile("(['\u2018\u2019\u201a\u201b])")
_EDITORS: Final = ("json", "toml", "yaml", "env")


def sh_text(value: str) -> str:
    """A value as one word of the shell, with variables in the places of its marks."""
    return _with_marks(value, _sh_literal, lambda name: f'"${name}"', "") or "''"


def _sh_literal(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'" if text else ""


def ps_text(value: str) -> str:
    """A value as one expression of PowerShell, with variables in the places of its marks."""
    text = _with_marks(value, _ps_literal, lambda name: f"${_ps_name(name)}", " + ") or "''"
    return f"({text})" if " + " in text else text


def _ps_literal(text: str) -> str:
    return "'" + _PS_QUOTE.sub(r"\1\1", text) + "'" if text else ""


def _ps_name(name: str) -> str:
    """`key_end` as `KeyEnd`."""
    return "".join(part.capitalize() for part in name.split("_"))


def _with_marks(
    value: str, literal: Callable[[str], str], variable: Callable[[str], str], between: str
) -> str:
    parts: list[str] = []
    end = 0
    for mark in _MARK.finditer(value):
        parts += [literal(value[end : mark.start()]), variable(mark[1] or "separator")]
        end = mark.end()
    parts.append(literal(value[end:]))
    return between.join(part for part in parts if part)


def setup_sh(settings: Settings) -> str:
    """The text of /setup.sh."""
    table = clients(settings)
    return _fill(
        "setup.sh",
        {
            **_common(settings, table, sh_text),
            "ids": sh_text(" ".join(client.id for client in table)),
            "table": "\n\n".join(_sh_table(table)),
            **{f"edit_{name}": sh_text(_read(f"edit_{name}.awk")) for name in _EDITORS},
        },
    )


def setup_ps1(settings: Settings) -> str:
    """The text of /setup.ps1."""
    table = clients(settings)
    return _fill(
        "setup.ps1",
        {
            **_common(settings, table, ps_text),
            "clients": ",\n".join(_ps_client(client) for client in table),
        },
    )


def _common(
    settings: Settings, table: tuple[Client, ...], text: Callable[[str], str]
) -> dict[str, str]:
    models = choose_models(settings)
    url = settings.server.public_url.rstrip("/")
    return {
        "url": url,
        "base": text(url),
        "small": text(f'"{models.small.id}"' if models else '""'),
        "id_list": ", ".join(client.id for client in table),
    }


def _read(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8").strip("\n")


def _fill(template: str, values: dict[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place[1]], _read(template)) + "\n"


# --- the shell ---


def _sh_table(table: tuple[Client, ...]) -> Iterator[str]:
    """Three functions: what a client is, the variables that it goes by, and its files."""
    yield _sh_function(
        "describe",
        {
            client.id: [
                f"title={sh_text(client.title)}",
                f"command={sh_text(client.command)}",
                f"install={sh_text(client.install)}",
            ]
            for client in table
        },
    )
    yield _sh_function(
        "variables",
        {
            client.id: [f"variable {name} {sh_text(says)}" for name, says in client.variables]
            for client in table
        },
    )
    yield _sh_function(
        "write",
        {
            client.id: [line for file in client.files for line in _sh_file(file)]
            + ([f"warn {sh_text(client.title + ': ' + client.note)}"] if client.note else [])
            for client in table
        },
    )


def _sh_function(name: str, cases: dict[str, list[str]]) -> str:
    lines = [f"{name}() {{", "    case $1 in"]
    for case, body in cases.items():
        lines += [f"    {case})", *(f"        {line}" for line in body or [":"]), "        ;;"]
    return "\n".join([*lines, "    *) ;;", "    esac", "}"])


def _sh_file(file: File) -> Iterator[str]:
    last = " only_there" if file.only_there else ""
    yield f'begin {file.format} "${file.folder}/{file.name}"{last}'
    for edit in file.edits:
        words = (edit.place, edit.value, edit.says)
        yield " ".join(("edit", edit.operation, *map(sh_text, words)))
    yield "finish"
    if file.rival:
        yield f'rival "${file.folder}/{file.rival}"'


# --- PowerShell ---


def _ps_client(client: Client) -> str:
    return _ps_map(
        {
            "Id": ps_text(client.id),
            "Title": ps_text(client.title),
            "Command": ps_text(client.command),
            "Install": ps_text(client.install),
            "Note": ps_text(client.note),
            "Variables": _ps_list(
                _ps_map({"Name": ps_text(name), "Says": ps_text(says)})
                for name, says in client.variables
            ),
            "Files": _ps_list(map(_ps_file, client.files)),
        }
    )


def _ps_file(file: File) -> str:
    return _ps_map(
        {
            "Format": ps_text(file.format),
            "Folder": ps_text(file.folder),
            "Name": ps_text(file.name),
            "OnlyThere": "$true" if file.only_there else "$false",
            "Rival": ps_text(file.rival),
            "Edits": _ps_list(map(_ps_edit, file.edits)),
        }
    )


def _ps_edit(edit: Edit) -> str:
    return _ps_map(
        {
            "Operation": ps_text(edit.operation),
            "Place": ps_text(edit.place),
            "Value": ps_text(edit.value),
            "Says": ps_text(edit.says),
        }
    )


def _ps_map(members: dict[str, str]) -> str:
    return "@{ " + "; ".join(f"{name} = {value}" for name, value in members.items()) + " }"


def _ps_list(items: Iterable[str]) -> str:
    return "@(" + ",\n    ".join(items) + ")"
