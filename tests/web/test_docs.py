"""The documentation for callers: every page in both languages, from the settings alone."""

import asyncio
import re
import tomllib
from html import escape, unescape
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay import errors
from relay.api.paths import NOT_OFFERED
from relay.web.languages import NAMES
from relay.web.manual.contents import FIRST, PAGES, page_path
from relay.web.manual.filling import as_code, as_text
from relay.web.manual.library import Library
from relay.web.manual.rendering import anchors, highlighted, parse, render
from relay.web.manual.usage_script import USAGE_SCRIPT
from relay.web.presentation import presentation
from tests.fakes.live import Live, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor

ADDRESS = "https://relay.example"
SERVER = {"listen": ["127.0.0.1:0"], "admin_listen": "", "public_url": ADDRESS}
PLAN = {
    "id": "pay", "name": "Pay | <b>as</b> you go", "billing": "per-token", "max_concurrency": 4,
    "limits": [{"requests": 400, "per": "5h"}, {"tokens": 800_000, "per": "1m"}],
}  # fmt: skip
MODELS = [
    {
        "id": "claude-sonnet-4-7",
        "display_name": "Sonnet *4.7* | <i>",
        "aliases": ["house|sonnet"],
        "context_window": 1_000_000,
        "max_output_tokens": 128_000,
        "price": {"input": 3.0, "output": 15.0},
    }
]
MOST_OCTETS = 100_000
ID = re.compile(r' id="([^"]+)"')
LINK = re.compile(r'href="([^"]+)"')
HEADING = re.compile(r'<(h[123])(?: id="([^"]+)")?>')
CODE = re.compile(r'<code id="code-\d+">(.*?)</code>', re.DOTALL)


@pytest.fixture
async def docs(relay_with: RelayWith) -> Live:
    """A relay with a public address, a plan that bills and names with mark-up in them."""
    return await relay_with(web=WEB, server=SERVER, plan=[PLAN], model=MODELS)


@pytest.fixture
def reader(docs: Live, another: NewVisitor) -> Visitor:
    return another(docs)


async def read(reader: Visitor, page: str, language: str = "en") -> str:
    answer = await reader.get(page_path(page), headers={"accept-language": language})
    assert answer.status_code == 200, answer.text
    assert len(answer.content) <= MOST_OCTETS
    return answer.text


async def test_pages_are_the_same_in_both_languages(reader: Visitor) -> None:
    """The same sections, under the same anchors, and the same code."""
    for page in PAGES:
        english, chinese = [await read(reader, page, language) for language in NAMES]
        assert HEADING.findall(english) == HEADING.findall(chinese), page
        assert CODE.findall(english) == CODE.findall(chinese), page
        assert len(re.findall("<tr>", english)) == len(re.findall("<tr>", chinese)), page
        article = re.search("<article.*?</article>", chinese, re.DOTALL)
        assert article is not None
        assert re.search("[一-鿿]", article[0])
        assert "style=" not in english + chinese


@pytest.mark.parametrize("language", NAMES)
async def test_every_link_leads_somewhere(reader: Visitor, language: str) -> None:
    pages = {page_path(page): await read(reader, page, language) for page in PAGES}
    elsewhere: set[str] = set()
    for path, html in pages.items():
        names = ID.findall(html)
        assert len(names) == len(set(names)), path
        for link in LINK.findall(html):
            target, _, anchor = link.partition("#")
            target = target or path
            if target in pages:
                assert not anchor or anchor in ID.findall(pages[target]), f"{path}: {link}"
            else:
                elsewhere.add(target.replace("&amp;", "&"))
    for target in elsewhere:
        answer = await reader.get(target)
        assert answer.status_code in (200, 303), target


async def test_a_page_is_filled_from_the_settings(reader: Visitor) -> None:
    models = await read(reader, "models")
    assert "Sonnet *4.7* | &lt;i&gt;" in models
    assert "<code>house|sonnet</code>" in models
    assert "1,000,000" in models
    assert "Pay | &lt;b&gt;as&lt;/b&gt; you go" in models
    assert "400 requests per 5 h, 800,000 tokens per min; 4 requests of a key at once" in models
    assert '<td class="n">$3.75</td>' in models
    messages = await read(reader, "messages")
    assert f"{ADDRESS}/v1/messages" in messages
    assert "127.0.0.1" not in messages


async def test_an_edition_is_made_once_for_its_settings(docs: Live) -> None:
    library = Library(presentation().texts)
    editions = [library.edition("en", docs.settings) for _ in range(5)]
    [first, *others] = await asyncio.gather(*editions)
    assert all(one is first for one in others)
    other = msgspec.structs.replace(docs.settings, model=[])
    changed = await library.edition("en", other)
    assert changed is not first
    assert "claude-sonnet-4-7" not in changed.pages["models"].source
    assert await library.edition("en", other) is changed


async def test_a_host_field_is_never_repeated(reader: Visitor) -> None:
    for path in ("/docs", "/docs/messages", "/docs/sdks.md", "/llms.txt", "/docs/search.json"):
        answer = await reader.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 200
        assert "evil.example" not in answer.text + str(answer.headers)


async def test_every_error_kind_is_on_the_page(reader: Visitor) -> None:
    page = (await reader.get("/docs/errors.md")).text
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, errors.Kind)]
    assert len(kinds) >= 20
    for kind in kinds:
        code = f", {as_code(kind.code)}" if kind.code else ""
        types = f"{as_code(kind.messages_type)} | {as_code(kind.openai_type)}{code} |"
        row = rf"^\| {kind.status} \| [A-Z].+ \| {re.escape(types)}$"
        assert re.search(row, page, re.MULTILINE), kind
    for one in NOT_OFFERED:
        assert as_code(one.prefix.decode()) in page


async def test_programs_get_markdown(reader: Visitor) -> None:
    overview = await reader.get("/llms.txt", headers={"accept": "*/*"})
    assert overview.headers["content-type"] == "text/plain; charset=utf-8"
    links = re.findall(r"\]\((\S+)\): ", overview.text)
    assert links == [f"{ADDRESS}/docs/{page}.md" for page in PAGES]
    for link in links:
        answer = await reader.get(link.removeprefix(ADDRESS), headers={"accept": "*/*"})
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        text = answer.text.replace(USAGE_SCRIPT.rstrip(), "")  # its places are CC Switch's
        assert not re.search(r"\{\{|\{%|\[code\]", text)
    chinese = await reader.get("/docs/messages.md?lang=zh")
    assert "流式回答" in chinese.text
    assert "流式回答" not in (await reader.get("/docs/messages.md?lang=xx")).text


@pytest.mark.parametrize("language", NAMES)
async def test_the_search_knows_every_section(reader: Visitor, language: str) -> None:
    answer = await reader.get(f"/docs/search.json?lang={language}")
    assert len(answer.content) <= MOST_OCTETS
    rows: list[list[str]] = answer.json()
    assert {path for path, *_ in rows} == {page_path(page) for page in PAGES}
    for path in {row[0] for row in rows}:
        html = (await reader.get(path)).text
        for _, anchor, _, heading, text in (row for row in rows if row[0] == path):
            assert not anchor or anchor in ID.findall(html)
            assert heading
            assert text
            assert "YOUR_KEY" not in text


@pytest.mark.parametrize("path", ["/docs/none", "/docs/none.md", "/docs/../start", "/docs/a/b"])
async def test_no_other_page_is_there(reader: Visitor, path: str) -> None:
    assert (await reader.get(path)).status_code == 404


async def test_the_first_page_has_one_address(reader: Visitor) -> None:
    answer = await reader.get(f"/docs/{FIRST}")
    assert (answer.status_code, answer.headers["location"]) == (308, "/docs")
    assert (await reader.get("/docs/")).status_code == 200


async def test_nothing_is_served_without_pages(relay_with: RelayWith, another: NewVisitor) -> None:
    visitor = another(await relay_with(web={"enabled": False}))
    for path in ("/docs", "/docs/messages", "/docs/messages.md", "/docs/search.json", "/llms.txt"):
        answer = await visitor.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/json"


async def test_somebody_is_shown_their_keys_hints(visitor: Visitor) -> None:
    page = await read(visitor, "sdks")
    assert 'href="/login?next=/dashboard/keys"' in page
    await visitor.sign_up()
    assert "You have none yet" in await read(visitor, "sdks")
    key = await visitor.new_key("<laptop>")
    page = await read(visitor, "sdks")
    assert key not in page
    assert key[-4:] in page
    assert "(&lt;laptop&gt;)" in page
    assert "docs-key" not in await read(visitor, "errors")


def rendered(text: str) -> str:
    def t(key: str, **_: object) -> str:
        return key

    tokens = parse(text)
    page = render(tokens, anchors(tokens), t)
    return page.opening + page.body


@pytest.mark.parametrize(
    "text",
    ["<script>alert(1)</script>", "[x](javascript:alert(1))", "```sh\n</code><script>\n```\n",
     "| a |\n|---|\n| <img src=x onerror=alert(1)> |\n", '![x](x" onerror="alert(1))'],
)  # fmt: skip
def test_a_text_brings_no_html_of_its_own(text: str) -> None:
    html = rendered(text)
    assert not re.search(r"<(script|img src=x)|href=\"javascript", html)


@pytest.mark.parametrize("language", NAMES)
async def test_hostile_names_stay_texts(docs: Live, language: str) -> None:
    """Of models and plans, in prose, tables and code of every page."""
    name = "a|`_'</code><script>1</script>{{x}}"
    settings = msgspec.structs.replace(
        docs.settings,
        model=[msgspec.structs.replace(docs.settings.model[0], id=name, aliases=[name])],
        plan=[msgspec.structs.replace(docs.settings.plan[0], name=name)],
        web=msgspec.structs.replace(docs.settings.web, name=name),
    )
    edition = await Library(presentation().texts).edition(language, settings)
    for page in edition.pages.values():
        assert "<script" not in page.rendered.opening + page.rendered.body
    assert escape(name, quote=False) in edition.pages["models"].rendered.body
    assert escape(name, quote=False) in unmarked(edition.pages["agents"].rendered.body)


def unmarked(html: str) -> str:
    """Code without its marks."""
    return re.sub(r"</?i\b[^>]*>", "", html)


def test_anchors_are_distinct() -> None:
    tokens = parse("# T\n\n## A b\n\n## A b\n\n### A, b!\n\n## 中文\n")
    assert anchors(tokens) == ["a-b", "a-b-2", "a-b-3", "section"]


@pytest.mark.parametrize("name", ["a|b", "a`b", "*a*", "[a](b)", "<b>", "a_b_", "&amp;", "1. a"])
def test_names_come_out_as_they_are(name: str) -> None:
    table = f"| a |\n|---|\n| {as_text(name)} {as_code(name)} |\n"
    shown = escape(name, quote=False)
    assert f"<td>{shown} <code>{shown}</code></td>" in rendered(table)


@pytest.mark.parametrize(
    ("kind", "code"),
    [("sh", "# a\ncurl -H 'x: y' # b\n"), ("json", '{"a": "<b>"}'), ("text", "a 'b' # c"),
     ("python", 'print(f"{a}")  # YOUR_KEY'), ("js", 'const a = "b"; // c')],
)  # fmt: skip
def test_highlighting_changes_no_letter(kind: str, code: str) -> None:
    assert unescape(re.sub(r"<[^>]+>", "", highlighted(code, kind))) == code


def test_every_page_is_in_the_package() -> None:
    root = Path(__file__).parents[2]
    package: dict[str, Any] = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = package["tool"]["setuptools"]["package-data"]["relay"]
    packed = {path for pattern in patterns for path in (root / "relay").glob(pattern)}
    for language in NAMES:
        folder = root / "relay/docs/callers" / language
        assert {path.stem for path in folder.iterdir()} == set(PAGES)
        assert set(folder.iterdir()) <= packed
