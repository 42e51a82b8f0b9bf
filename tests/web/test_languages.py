"""The texts: every key in every language, none without use, and which language a browser gets."""

import re
import string
from pathlib import Path
from typing import get_args

import pytest

from relay import web
from relay.store.records import Rule
from relay.web.formats import OUTCOMES
from relay.web.languages import choose, read_texts
from tests.fakes.live import Live
from tests.web.visitor import Visitor

FOLDER = Path(web.__file__).parent
TEXTS = read_texts()
SOURCES = [*FOLDER.rglob("*.html"), *FOLDER.rglob("*.py")]
LITERAL = re.compile(r"""\bt\(\s*["']([a-z_]+\.[a-z0-9_]+)["'](?!\s*~)""")
FAMILY = re.compile(r"""\bt\(\s*f?["']([a-z_]+\.[a-z_]*)(?:["']\s*~|\{)""")
KEYED = re.compile(r"""(?:refuse\(\s*\d+,|PageError\([\w.]+,)\s*"([a-z_]+)\"""")
DONE = re.compile(r'done="([a-z_]+)"')
FIXED = re.compile(r'"([a-z_]+)"')


def used() -> tuple[set[str], set[str]]:
    """Keys that are used by name, and beginnings of keys that are put together."""
    literal: set[str] = set()
    families: set[str] = set()
    for path in SOURCES:
        text = path.read_text("utf-8")
        literal |= set(LITERAL.findall(text))
        families |= set(FAMILY.findall(text))
        literal |= {f"error.{key}" for key in KEYED.findall(text)}
        literal |= {f"done.{key}" for key in DONE.findall(text)}
    table = re.search(r"_ERROR_KEYS: Final = \{(.*?)\}", (FOLDER / "site.py").read_text())
    assert table is not None
    literal |= {f"error.{key}" for key in FIXED.findall(table[1])}
    literal |= {"error.bad_request", "error.busy", "error_title.other"}
    return literal, families - {"done.", "error."}


def test_both_languages_have_the_same_keys() -> None:
    assert TEXTS["en"].keys() == TEXTS["zh"].keys()


def test_no_key_that_is_used_is_missing() -> None:
    literal, families = used()
    assert sorted(literal - TEXTS["en"].keys()) == []
    for family in families:
        assert any(key.startswith(family) for key in TEXTS["en"]), family


def test_no_key_is_without_use() -> None:
    literal, families = used()
    unused = [
        key for key in TEXTS["en"] if key not in literal and not key.startswith(tuple(families))
    ]
    assert unused == []


def test_every_outcome_and_rule_has_a_text() -> None:
    keys = TEXTS["en"].keys()
    assert {f"outcome.{word.replace(' ', '_')}" for word in OUTCOMES} <= keys
    assert {f"rule.{rule}" for rule in get_args(Rule)} == {
        key for key in keys if key.startswith("rule.")
    }


def test_both_texts_have_the_same_values() -> None:
    def names(text: str) -> set[str | None]:
        return {name for _, name, _, _ in string.Formatter().parse(text)} - {None}

    for key, text in TEXTS["zh"].items():
        assert names(TEXTS["en"][key]) == names(text), key
        assert text.strip(), key
        # A Chinese text without Chinese is a name, a number or a placeholder.
        if key.partition(".")[0] not in ("snippets", "theme") and "{" not in text:
            has_chinese = re.search(r"[\u4e00-\u9fff]", text)
            assert has_chinese or key in ("front.address", "metric.tokens", "request.tokens"), key


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        ("", "", "en"),
        ("", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("", "en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("", "fr,zh;q=0.3,en;q=0.2", "zh"),
        ("", "fr", "en"),
        ("", "zh;q=0", "en"),
        ("", "zh;q=x,;;,=", "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en", "zh"),
        ("xx", "zh", "zh"),
    ],
)
def test_a_browser_gets_its_language(cookie: str, accepted: str, language: str) -> None:
    assert choose(cookie, accepted) == language


async def test_a_choice_of_language_and_look_is_kept(site: Live, visitor: Visitor) -> None:
    page = (await visitor.get("/login")).text
    assert 'lang="en" data-theme="auto"' in page
    answer = await visitor.post("/preferences", data={"language": "zh", "back": "/login?next=/a"})
    assert answer.headers["location"] == "/login?next=/a"
    await visitor.post("/preferences", data={"theme": "dark", "back": "/login"})
    page = (await visitor.get("/login")).text
    assert 'lang="zh-Hans" data-theme="dark"' in page
    assert "登录" in page
    assert 'aria-pressed="true">中文' in page
    await visitor.post("/preferences", data={"theme": "pink", "language": "xx", "back": "/login"})
    assert 'lang="zh-Hans" data-theme="dark"' in (await visitor.get("/login")).text


async def test_errors_are_in_the_browsers_language(visitor: Visitor) -> None:
    answer = await visitor.get("/dashboard/none", headers={"accept-language": "zh"})
    assert answer.status_code == 404
    assert "没有这个页面" in answer.text
