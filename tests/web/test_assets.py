"""Style and scripts: hashed names, kept for good, and vendored files as they came."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest

from relay.web.assets import Assets
from tests.fakes.live import Live
from tests.web.visitor import Visitor

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "relay/web/static/vendor"


def test_vendored_files_are_recorded_and_unchanged() -> None:
    rows = re.findall(
        r"^\| `([^`]+)` \|.*\| `([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M
    )
    assert {name for name, _ in rows} == {
        path.name for path in VENDOR.iterdir() if path.suffix in (".js", ".css")
    }
    for name, digest in rows:
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest
        assert (VENDOR / f"{name.partition('-')[0]}.LICENSE").is_file()


def test_every_file_is_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"][
        "package-data"
    ]["relay"]
    packed = {path for pattern in patterns for path in (ROOT / "relay").glob(pattern)}
    needed = {
        path
        for folder in ("templates", "static", "languages", "set_up")
        for path in (ROOT / "relay/web" / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert needed <= packed


@pytest.mark.parametrize("name", ["style.css", "page.js", "vendor/htmx-4.0.1.min.js", "mark.svg"])
async def test_a_file_is_kept_for_good_under_its_hashed_name(
    site: Live, visitor: Visitor, name: str
) -> None:
    path = Assets().url(name)
    answer = await visitor.get(path)
    assert answer.content == (ROOT / "relay/web/static" / name).read_bytes()
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-encoding"] == "gzip"
    plain = await visitor.get(path, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == answer.content
    earlier = re.sub(r"\.[0-9a-f]{10}\.", ".0123456789.", path)
    late = await visitor.get(earlier)  # a page from before an upgrade
    assert (late.status_code, late.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path", ["/static/", "/static/none.css", "/static/../site.py", "/static/%2e%2e/site.py",
             "/static//etc/passwd", "/static/vendor/README.md"],
)  # fmt: skip
async def test_no_other_file_is_served(site: Live, visitor: Visitor, path: str) -> None:
    assert (await visitor.get(path)).status_code == 404
