"""Wheels and archives of this relay with other versions, for upgrades without a network."""

import os
import site
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import relay

ROOT: Final = Path(__file__).parents[2]
BROKEN = '\n\ndef serve(*_: object, **__: object) -> int:\n    raise OSError("it is broken")\n'

_METADATA = "Metadata-Version: 2.1\nName: relay\nVersion: {}\n"
# It lets the relay that serves stop, and is never ready.
HANGING = """

def serve(settings: Settings, *_: object, **__: object) -> int:
    async def hang() -> None:
        taking = await Taking.connect(settings.database.path)
        assert taking is not None
        await taking.begin()
        await asyncio.sleep(1000)

    asyncio.run(hang())
    return 0
"""


def archive(folder: Path, version: str, *, more: str = "", schema: int = 0) -> Path:
    """A relay.pyz of the package as it is, but for its version; see `wheel`. It finds what it
    depends on where this interpreter has it. `more` is added to relay/process.py."""
    target = folder / f"relay-{version}.pyz"
    build = f"relay-{version} {os.uname().machine} {sys.version_info[0]}.{sys.version_info[1]}\n"
    with zipfile.ZipFile(target, "w") as packed:
        packed.write(ROOT / "deploy" / "bootstrap.py", "__main__.py")
        packed.writestr("BUILD", build)
        for name, text in _sources(version, more, schema):
            packed.writestr(f"lib/{name}", text)
    return target


def _sources(version: str, more: str, schema: int, metadata: str = "") -> Iterator[tuple[str, str]]:
    """Names and texts of the package's files."""
    root = Path(relay.__file__).parent
    for source in root.rglob("*"):
        if source.suffix not in (".py", ".toml", ".sql"):
            continue
        text = source.read_text()
        if source == root / "__init__.py":
            text = text.replace(f'"{relay.__version__}"', f'"{version}"')
        if source == root / "process.py":
            text += more
        yield f"relay/{source.relative_to(root)}", text
    number = len(list((root / "store/migrations").glob("*.sql")))
    for later in range(number + 1, number + 1 + schema):
        yield f"relay/store/migrations/{later:04}_later.sql", f"CREATE TABLE later_{later} (a);\n"
    yield f"relay-{version}.dist-info/METADATA", _METADATA.format(version) + metadata


def wheel(
    folder: Path, version: str, *, more: str = "", schema: int = 0, metadata: str = ""
) -> Path:
    """A wheel of the package as it is, but for its version. `more` is added to relay/process.py.
    `schema`: it has so many migrations more. `metadata`: further lines of METADATA."""
    path = folder / f"relay-{version}-py3-none-any.whl"
    info = f"relay-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        for name, text in _sources(version, more, schema, metadata):
            file.writestr(name, text)
        # What it depends on is where this interpreter has it.
        file.writestr("relay_dependencies.pth", "\n".join(site.getsitepackages()) + "\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path
