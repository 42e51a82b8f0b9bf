"""`make dist`: run twice, it gives the same octets, and relay.pyz serves."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def build(target: Path) -> dict[str, str]:
    """Build for this Python only; returns the checksums by name."""
    subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "build.py"), "--output", str(target),
         "--pythons", HERE],
        check=True, timeout=1800, env={**os.environ, "SOURCE_DATE_EPOCH": "1775649600"},
    )  # fmt: skip
    lines = (target / "SHA256SUMS").read_text().splitlines()
    return {line.split("  ")[1]: line.split("  ")[0] for line in lines}


@pytest.mark.long  # it fetches the locked packages from the registry, twice
def test_a_build_is_reproducible_and_runs(tmp_path: Path) -> None:
    first, second = build(tmp_path / "a"), build(tmp_path / "b")
    assert first == second
    compiled = {name for name in first if f"-cp{HERE.replace('.', '')}-" in name}
    can_compile = subprocess.run(
        [sys.executable, str(ROOT / "deploy" / "compile.py"), "--check"], check=False
    )
    assert len(compiled) == (can_compile.returncode == 0)
    assert set(first) - compiled == {
        "install.sh", "relay.pyz", "relay-0.1.0.tar.gz", "relay-0.1.0-py3-none-any.whl",
    }  # fmt: skip
    pyz = tmp_path / "a" / "relay.pyz"
    assert hashlib.sha256(pyz.read_bytes()).hexdigest() == first["relay.pyz"]
    result = subprocess.run(
        [sys.executable, str(pyz), "--version"], capture_output=True, text=True, timeout=60,
        cwd=tmp_path, env={"PATH": os.defpath, "RELAY_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    form = "compiled" if compiled else "not compiled"
    assert result.stdout == f"relay, version 0.1.0 ({form})\n", result.stderr
