"""Wheels of this relay under other version numbers, for upgrades without a network."""

import site
import zipfile
from pathlib import Path

import relay

_BROKEN = '\n\ndef serve(*_: object, **__: object) -> int:\n    raise OSError("it is broken")\n'


def wheel(folder: Path, version: str, *, broken: bool = False, schema: int = 0) -> Path:
    """A wheel of the package as it is, but for its version. `broken`: it does not serve.
    `schema`: it has so many migrations more."""
    path = folder / f"relay-{version}-py3-none-any.whl"
    root = Path(relay.__file__).parent
    info = f"relay-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        for source in root.rglob("*"):
            if source.suffix not in (".py", ".toml", ".sql"):
                continue
            text = source.read_text()
            if source == root / "__init__.py":
                text = text.replace(f'"{relay.__version__}"', f'"{version}"')
            if broken and source == root / "process.py":
                text += _BROKEN
            file.writestr(f"relay/{source.relative_to(root)}", text)
        number = len(list((root / "store/migrations").glob("*.sql")))
        for more in range(number + 1, number + 1 + schema):
            sql = f"CREATE TABLE later_{more} (a INTEGER);\n"
            file.writestr(f"relay/store/migrations/{more:04}_later.sql", sql)
        # What it depends on is where this interpreter has it.
        file.writestr("relay_dependencies.pth", "\n".join(site.getsitepackages()) + "\n")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: relay\nVersion: {version}\n"
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path
