"""Upstreams taken out and put in by an administrator."""

import asyncio
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from relay import config
from relay.reload import Reloader
from relay.transfer.upstream_tables import as_toml
from tests.fakes.live import Live
from tests.web.administration import last_entry
from tests.web.visitor import PASSWORD, Visitor

PAGE = "/admin/upstreams/import"
SECRET = "literal-credential-canary"


@pytest.fixture
def file(relay: Live, tmp_path: Path) -> Path:
    """The relay's settings as a file, with a comment."""
    path = tmp_path / "settings" / "relay.toml"
    path.parent.mkdir()
    tree = {"name": "main", "base_url": relay.upstream_url, "api_key": SECRET}
    present = relay.settings.database.path
    path.write_text(
        f'# Ours.\n[database]\npath = "{present}"\n\n# The only one.\n{as_toml([tree])}'
    )
    path.chmod(0o640)
    relay.app.reloading = Reloader(relay.app, str(path))
    return path


def text_of(file: Path) -> str:
    return file.read_text()


def upstream(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "base_url": "https://api.example", "api_key": "env:HOME", **more}


async def put_in(admin: Visitor, text: str, **fields: str) -> Any:
    return await admin.submit(PAGE, text=text, **fields)


async def test_an_export_has_no_secrets(admin: Visitor, file: Path) -> None:
    toml = await admin.get("/admin/upstreams/export.toml")
    assert toml.headers["content-disposition"].startswith('attachment; filename="upstreams-')
    as_json = await admin.get("/admin/upstreams/export.json")
    assert tomllib.loads(toml.text) == json.loads(as_json.text)
    assert json.loads(as_json.text)["upstream"][0]["api_key"] == "•••"
    assert SECRET not in toml.text + as_json.text
    assert (await admin.get("/admin/upstreams/export.xml")).status_code == 404


async def test_secrets_need_the_password(relay: Live, admin: Visitor, file: Path) -> None:
    target = "/admin/upstreams/export.toml"
    refused = await admin.submit(PAGE, target, present="wrong")
    assert refused.status_code == 422
    assert SECRET not in refused.text
    given = await admin.submit(PAGE, target, present=PASSWORD)
    assert tomllib.loads(given.text)["upstream"][0]["api_key"] == SECRET
    entry = await last_entry(relay)
    assert (entry.action, entry.after) == ("upstream.export", {"secrets": True})


async def test_an_import_is_shown_then_written(relay: Live, admin: Visitor, file: Path) -> None:
    before = text_of(file)
    text = json.dumps([upstream("second", weight=3)])
    shown = await put_in(admin, text)
    assert "upstream[second]: added" in shown.text
    assert text_of(file) == before
    assert [one.name for one in relay.app.upstreams] == ["main"]
    refused = await put_in(admin, text, write="1", present="wrong")
    assert refused.status_code == 422
    assert text_of(file) == before
    done = await put_in(admin, text, write="1", present=PASSWORD)
    assert done.headers["location"] == "/admin/upstreams?done=upstreams_imported"
    assert [one.name for one in relay.app.upstreams] == ["main", "second"]
    after = text_of(file)
    assert after.startswith("# Ours.")
    assert "# The only one." in after
    assert config.load(file).upstream[1].weight == 3
    assert os.stat(file).st_mode & 0o777 == 0o640
    assert sorted(os.listdir(file.parent)) == ["relay.toml"]


async def test_an_import_is_in_the_audit_log(relay: Live, admin: Visitor, file: Path) -> None:
    await put_in(admin, as_toml([upstream("second")]), write="1", present=PASSWORD)
    rows = await relay.app.database.select("SELECT action, after FROM audit ORDER BY id")
    noted = {action: json.loads(after) for action, after in rows if after}
    assert noted["upstream.import"] == {"added": ["second"], "changed": [], "removed": []}
    assert "upstream[second]: added" in noted["settings.reload"]["changed"]


async def test_what_was_taken_out_can_be_put_in(admin: Visitor, file: Path) -> None:
    text = (await admin.get("/admin/upstreams/export.json")).text
    page = (await put_in(admin, text)).text
    assert 'name="write"' not in page
    document = json.loads(text)
    document["upstream"][0]["weight"] = 7
    done = await put_in(admin, json.dumps(document), write="1", present=PASSWORD)
    assert done.is_redirect
    found = tomllib.loads(text_of(file))["upstream"][0]
    assert (found["weight"], found["api_key"]) == (7, SECRET)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "neither JSON nor TOML"),
        ("[server]", "only upstreams"),
        (json.dumps([upstream("x", wight=1)]), "wight"),
        (json.dumps([upstream("x", api_key="file:/nowhere/at/all")]), "/nowhere/at/all"),
        (json.dumps([upstream("x", api_key="•••")]), "its secret is left out"),
    ],
)
async def test_what_cannot_be_used_is_named(
    relay: Live, admin: Visitor, file: Path, text: str, words: str
) -> None:
    before = text_of(file)
    for fields in ({}, {"write": "1", "present": PASSWORD}):
        answer = await put_in(admin, text, **fields)
        assert answer.status_code == 422
        assert words in answer.text
        assert text.replace('"', "&#34;") in answer.text
    assert text_of(file) == before
    assert [one.name for one in relay.app.upstreams] == ["main"]


async def test_others_go_only_if_wanted(relay: Live, admin: Visitor, file: Path) -> None:
    text = as_toml([upstream("second")])
    page = (await put_in(admin, text, only="1")).text
    assert "upstream[main]: removed" in page
    assert '<input type="hidden" name="only" value="1">' in page
    await put_in(admin, text, only="1", write="1", present=PASSWORD)
    assert [one.name for one in relay.app.upstreams] == ["second"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_a_file_that_cannot_be_written_is_left_to_people(admin: Visitor, file: Path) -> None:
    file.parent.chmod(0o555)
    try:
        page = (await put_in(admin, as_toml([upstream("second")]))).text
        assert "The relay may not write this file" in page
        assert 'name="write"' not in page
    finally:
        file.parent.chmod(0o755)


async def test_two_imports_at_once_lose_nothing(admin: Visitor, file: Path) -> None:
    answers = await asyncio.gather(
        *(
            put_in(admin, as_toml([upstream(f"u{n}")]), write="1", present=PASSWORD)
            for n in range(4)
        )
    )
    written = {f"u{n}" for n, answer in enumerate(answers) if answer.is_redirect}
    assert written
    names = {one["name"] for one in tomllib.loads(text_of(file))["upstream"]}
    assert names == {"main", *written}
