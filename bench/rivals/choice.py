"""The options that choose rivals: which there are, which are installed, how others are added.

Decides what `--rival` means. Must not know what is measured.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from bench.process import BenchError
from bench.rivals.caddy import CADDY
from bench.rivals.crabllm import CRABLLM
from bench.rivals.envoy import ENVOY
from bench.rivals.ferro import FERRO
from bench.rivals.haproxy import HAPROXY
from bench.rivals.litellm import LITELLM, LITELLM_RUST
from bench.rivals.nginx import nginx_program
from bench.rivals.portkey import PORTKEY
from bench.rivals.program import Recipe, found, read_template
from bench.rivals.smg import SMG

REFERENCES = ("direct", "nginx", "relay")
RECIPES = {
    recipe.name: recipe
    for recipe in (*(HAPROXY, ENVOY, CADDY, SMG, CRABLLM, FERRO, PORTKEY, LITELLM, LITELLM_RUST),)
}
_ALL = "all"
_DEFAULT = ("nginx", "relay")
_NAME = re.compile(r"[a-z][a-z0-9._-]{0,11}")


@dataclass(frozen=True, slots=True)
class Choice:
    """The rivals to measure: names of the built-in ones, programs that are installed, and a
    sentence for each rival that is not."""

    references: tuple[str, ...]
    programs: tuple[Recipe, ...]
    missing: tuple[str, ...]

    @classmethod
    def of(cls, wanted: Sequence[str | Recipe], folder: Path | None) -> "Choice":
        """The rivals that these values of `--rival` mean here."""
        references: dict[str, None] = {}
        programs: dict[str, Recipe] = {}
        missing = []
        for item in _expanded(wanted or _DEFAULT):
            if isinstance(item, str):
                if item == "nginx" and nginx_program() is None:
                    missing.append(
                        "nginx is not installed (apt-get install nginx-light): "
                        "there are no ratios to it."
                    )
                else:
                    references[item] = None
                continue
            program = found(item.program, folder)
            if program is None:
                command = f" ({item.install})" if item.install else ""
                missing.append(f"{item.name} is not installed{command}: it is left out.")
            else:
                programs[item.name] = msgspec.structs.replace(item, program=program)
        return cls(tuple(references), tuple(programs.values()), tuple(missing))


def _expanded(wanted: Sequence[str | Recipe]) -> list[str | Recipe]:
    """`all` → every rival there is; names of programs → their recipes."""
    names: list[str | Recipe] = []
    for item in wanted:
        names += (*REFERENCES, *RECIPES) if item == _ALL else (item,)
    return [RECIPES.get(item, item) if isinstance(item, str) else item for item in names]


def _wanted(
    context: click.Context, parameter: click.Parameter, values: Sequence[str]
) -> tuple[str | Recipe, ...]:
    """`NAME` or `NAME=BINARY[:TEMPLATE]` → names and recipes."""
    return tuple(_one(value) for value in values)


def _one(value: str) -> str | Recipe:
    name, has_program, rest = value.partition("=")
    if not has_program:
        if name != _ALL and name not in REFERENCES and name not in RECIPES:
            known = ", ".join((_ALL, *REFERENCES, *RECIPES))
            raise click.BadParameter(f"{name!r} is none of {known}, and no NAME=BINARY[:TEMPLATE]")
        return name
    program, _, template = rest.partition(":")
    if not _NAME.fullmatch(name) or not program:
        raise click.BadParameter(f"{value!r} is no NAME=BINARY[:TEMPLATE]")
    if name == _ALL or name in REFERENCES:
        raise click.BadParameter(f"the name {name!r} is taken")
    if template:
        try:
            recipe = read_template(Path(template))
        except BenchError as error:
            raise click.BadParameter(str(error)) from None
    elif name in RECIPES:
        recipe = RECIPES[name]
    else:
        raise click.BadParameter(f"{name!r} needs a template: {name}={program}:TEMPLATE")
    # As a path, so that a file of the working directory is meant, not one on PATH.
    return msgspec.structs.replace(recipe, name=name, program=str(Path(program).absolute()))


rival_option = click.option(
    "--rival",
    "wanted",
    multiple=True,
    callback=_wanted,
    metavar="NAME|NAME=BINARY[:TEMPLATE]",
    help=f"Measure this rival; may be repeated. {' and '.join(_DEFAULT)} by default; `direct` is "
    f"no proxy. Also {', '.join(RECIPES)}; `{_ALL}` is every one that is installed. BINARY is "
    "another program, TEMPLATE a TOML file with its settings and command line.",
)
folder_option = click.option(
    "--rivals-folder",
    envvar="RELAY_BENCH_RIVALS",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder in which rivals are installed, searched before PATH.",
)
