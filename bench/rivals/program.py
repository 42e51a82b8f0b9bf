"""A rival that is another project's program, described by a recipe: settings and command line.

Decides where a program is looked for, how places in a recipe are filled in, and which part of
its output is its version. Must not know a program by name: each has a module with its recipe, and
`--rival NAME=BINARY:TEMPLATE` brings one from a file.
"""

import functools
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bench.dialects import MODEL
from bench.process import BenchError, free_ports, output
from bench.rivals.rival import UPSTREAM_KEY, Rival

_TREE = Path(__file__).parents[2]
# Filled in wherever they stand in braces.
PLACES = (
    *("port", "http2_port", "admin_port", "upstream_port", "key", "upstream_key", "model"),
    *("folder", "program", "bin"),
)
_PLACE = re.compile(r"\{([a-z]\w*)\}")
_MISSPELT = 0.75  # how much a name is like that of a place
_VERSION = re.compile(r"\d+\.\d+[\w.+-]*")
# Where packages put programs that an ordinary user's PATH may lack.
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "~/.cargo/bin", "~/go/bin")


DialectName = Literal["messages", "chat", "responses"]
FileName = Annotated[str, msgspec.Meta(pattern=r"^[^/]*[^/.][^/]*$")]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is needed to run a program as a rival; a template file has the same names.

    Texts may hold places in braces: {port}, {http2_port} and {admin_port} are free ports of
    127.0.0.1, {upstream_port} is that of the upstream, {key} the credential of callers and
    {upstream_key} the upstream's, {model} the model's id, {folder} a folder of its own, {program}
    the program and {bin} its folder. Other braces stay as they are.
    """

    name: str = ""
    program: str = ""  # its file name, or a path that ends with it
    install: str = ""  # the command that installs it
    argv: Annotated[
        tuple[str, ...], msgspec.Meta(min_length=1)
    ]  # the command that runs it in the foreground
    version: tuple[str, ...] = ("{program}", "--version")
    files: Mapping[FileName, str] = {}  # in {folder}, by name
    environment: Mapping[str, str] = {}  # beside that of the bench
    dialects: Annotated[frozenset[DialectName], msgspec.Meta(min_length=1)]
    streams: frozenset[DialectName] | None = None  # None: in all dialects
    key: str = UPSTREAM_KEY
    fields: Mapping[str, str] = {}  # that its callers send beside those of their dialect
    ready: str = "/readyz"  # answered with 200 as soon as it can serve
    ready_s: float = 10.0
    http2: bool = False  # whether it takes HTTP/2 without TLS at {http2_port}
    plain: bool = False
    forwards_fields: bool = True
    most_streams: int | None = None
    warm_s: float = 0.0
    unable: Mapping[str, str] = {}


class Program(Rival):
    """A program with the settings of its recipe."""

    may_fail = True

    def __init__(self, folder: Path, upstream: int, recipe: Recipe) -> None:
        super().__init__(folder)
        self.name = recipe.name
        self.dialects = recipe.dialects
        self.streams = recipe.dialects if recipe.streams is None else recipe.streams
        self.plain = recipe.plain
        self.key = recipe.key
        self.forwards_fields = recipe.forwards_fields
        self.most_streams = recipe.most_streams
        self.warm_s = recipe.warm_s
        self.unable = recipe.unable
        self.ready_path, self.ready_s = recipe.ready, recipe.ready_s
        port, http2_port, admin_port = free_ports(3)
        self.json_port = self.sse_port = port
        if recipe.http2:
            self.http2_ports = (http2_port, http2_port)
        self._places = {
            "port": str(port),
            "http2_port": str(http2_port),
            "admin_port": str(admin_port),
            "upstream_port": str(upstream),
            "key": recipe.key,
            "upstream_key": UPSTREAM_KEY,
            "model": MODEL,
            "folder": str(folder),
            "program": recipe.program,
            "bin": str(Path(recipe.program).parent),
        }
        self._argv = [self._filled(part) for part in recipe.argv]
        self._environment = self._all_filled(recipe.environment)
        files = self._all_filled(recipe.files)
        for name, text in files.items():
            (folder / name).write_text(text)
        fields = self._all_filled(recipe.fields)
        self.fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.settings = "".join(
            (
                *(f"{name}={value}\n" for name, value in self._environment.items()),
                *files.values(),
                *(f"{name}: {value}\n" for name, value in fields.items()),
            )
        )
        self.version = _version(
            tuple(self._filled(part) for part in recipe.version),
            tuple(self._environment.items()),
        )

    def argv(self) -> Sequence[str]:
        return self._argv

    def environment(self) -> Mapping[str, str]:
        return {**os.environ, **self._environment}

    def _filled(self, text: str) -> str:
        for place, value in self._places.items():
            text = text.replace("{" + place + "}", value)
        return text

    def _all_filled(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {name: self._filled(text) for name, text in texts.items()}


def found(program: str, folder: Path | None) -> str | None:
    """The path of a program; None if it is not installed.

    `folder` comes first, with the places in it and one below it where installers put programs, so
    that each program may have an environment of its own there.
    """
    if os.path.isabs(program):
        return shutil.which(program)
    places = [*_places(folder), *os.get_exec_path(), *map(os.path.expanduser, _FOLDERS)]
    places.append(str(_TREE / "node_modules"))
    for place in places:
        # With a folder in its name, `which` would not look into `place`.
        path = shutil.which(os.path.join(place, program))
        if path is not None:
            return os.path.abspath(path)
    return None


def _places(folder: Path | None) -> Iterator[str]:
    if folder is None:
        return
    for base in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        yield from (str(base), str(base / "bin"), str(base / "node_modules"))


def read_template(path: Path) -> Recipe:
    """The recipe in a TOML file.

    Raises:
        BenchError: it cannot be read, or is no recipe.
    """
    try:
        recipe = msgspec.toml.decode(path.read_bytes(), type=Recipe)
    except (OSError, msgspec.DecodeError) as error:
        raise BenchError(f"the template {path} cannot be used: {error}") from None
    if wrong := _unknown_places(recipe):
        known = ", ".join("{" + place + "}" for place in PLACES)
        raise BenchError(f"the template {path} cannot be used: {wrong[0]} is none of {known}")
    return recipe


def _unknown_places(recipe: Recipe) -> list[str]:
    """The places in braces that nothing is filled into.

    A program may have braces of its own in its settings: there, only a misspelt place counts.
    """
    texts = (*recipe.argv, *recipe.version, *recipe.environment.values(), *recipe.fields.values())
    wrong = [name for text in texts for name in _PLACE.findall(text) if name not in PLACES]
    for text in recipe.files.values():
        wrong += [
            name
            for name in _PLACE.findall(text)
            if name not in PLACES and get_close_matches(name, PLACES, 1, _MISSPELT)
        ]
    return ["{" + name + "}" for name in wrong]


@functools.cache
def _version(argv: tuple[str, ...], environment: tuple[tuple[str, str], ...]) -> str:
    """The first version number that a program prints about itself."""
    try:
        printed = output(argv, {**os.environ, **dict(environment)})
    except BenchError:
        return "unknown"
    number = _VERSION.search(printed)
    return number[0] if number else "unknown"
