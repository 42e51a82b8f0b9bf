"""The front page says what this install offers; a new key comes with links and examples."""

import re
import tomllib
from base64 import b64decode
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from relay import config
from relay.web.import_links import import_links
from relay.web.languages import NAMES, read_texts, translator
from relay.web.manual.edition import Edition
from relay.web.manual.filling import KEY, claude_code
from relay.web.manual.usage_script import USAGE_SCRIPT
from relay.web.snippets import snippets
from tests.fakes.live import Live, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.visitor import WEB, Visitor

ADDRESS = "https://relay.example"
SERVER = {"listen": ["127.0.0.1:0"], "admin_listen": "", "public_url": ADDRESS}
SHIPPED = tomllib.loads((Path(__file__).parents[2] / "relay.toml").read_text())
PAYMENTS = {
    "stripe_key": "sk_test_1", "webhook_secret": "whsec_1",
    "offer": [
        {"id": "m", "title": "A month", "price": 1900, "plan": "pro", "length": "30d"},
        {"id": "c", "title": "20 dollars", "price": 2000, "credit": 20},
    ],
}  # fmt: skip
PLANS = [
    {"id": "free", "name": "Free <b>", "limits": [{"requests": 40, "per": "5h"}]},
    {"id": "pro", "name": "Pro", "limits": [{"tokens": 800_000, "per": "1m"}], "max_keys": 7},
    {"id": "metered", "billing": "per-token"},
]
NEW_KEY = "sk-llmapi-" + "a" * 43


def settings_of(**sections: Any) -> config.Settings:
    return config.parse(
        {"model": SHIPPED["model"], "plan": PLANS, "server": {"public_url": ADDRESS}, **sections}
    )


@pytest.fixture
async def install(relay_with: RelayWith) -> Live:
    web = {**WEB, "name": "House", "tagline": "Models for <us>", "tagline_zh": "我们的模型"}
    models = [{**one, "routes": None} for one in SHIPPED["model"]]
    models = [{name: value for name, value in one.items() if value} for one in models]
    return await relay_with(web=web, server=SERVER, plan=PLANS, model=models, payments=PAYMENTS)


async def test_the_front_page_is_filled_from_the_settings(
    install: Live, another: NewVisitor
) -> None:
    visitor = another(install)
    page = (await visitor.get("/", headers={"host": "evil.example"})).text
    assert "<h1>Models for &lt;us&gt;</h1>" in page
    assert f"export ANTHROPIC_BASE_URL={ADDRESS}\nexport ANTHROPIC_AUTH_TOKEN=YOUR_KEY\n" in page
    assert f"curl -fsSL {ADDRESS}/setup.sh | bash -s -- --key YOUR_KEY" in page
    assert "1,000,000" in page
    assert "$15.00" in page
    assert "Free &lt;b&gt;" in page
    assert re.search(r"<b>40</b> <span>requests per 5 h<", page)
    assert re.search(r"<b>800,000</b> <span>tokens per 1 min<", page)
    assert re.search(r"<b>19.00 USD</b> for 30 d", page)
    assert "20 dollars: 20.00 USD" in page
    assert "Prepaid" in page
    for path in ("/signup", "/login", "/docs", "/status", "/docs/models"):
        assert f'href="{path}"' in page
    assert "<h1>我们的模型</h1>" in (await visitor.get("/", headers={"accept-language": "zh"})).text
    for path in re.findall(r'href="(/docs[^"#]*)#([^"]+)"', page):
        answer = await visitor.get(path[0])
        assert f'id="{path[1]}"' in answer.text, path


async def test_the_front_page_needs_no_status(install: Live, another: NewVisitor) -> None:
    """As while the database fails: strangers still see how to begin."""
    await install.app.database.write(lambda connection: connection.execute("DROP VIEW answer"))
    answer = await another(install).get("/")
    assert answer.status_code == 200
    assert "setup.sh" in answer.text
    assert 'class="overall' not in answer.text


@pytest.mark.parametrize(
    ("sign_up", "words"),
    [("closed", "opened by the operator"), ("invite", "opened by invitation"), ("open", "Sign up")],
)
async def test_the_front_page_says_who_may_sign_up(
    relay_with: RelayWith, another: NewVisitor, sign_up: str, words: str
) -> None:
    live = await relay_with(web={**WEB, "sign_up": sign_up}, model=[])
    page = (await another(live).get("/")).text
    assert words in page
    assert ('href="/signup"' in page) == (sign_up == "open")
    assert 'id="models"' not in page


def test_two_variables_are_enough_where_families_are_served() -> None:
    assert claude_code(settings_of(), "K").splitlines() == [
        f"export ANTHROPIC_BASE_URL={ADDRESS}",
        "export ANTHROPIC_AUTH_TOKEN=K",
    ]
    models = [{"id": "claude-sonnet-4-7"}, {"id": "claude-haiku-4-5"}]
    without = settings_of(model=models, plan=PLANS[:2])
    assert claude_code(without, "K").splitlines()[2:] == [
        "export ANTHROPIC_MODEL=claude-sonnet-4-7",
        "export ANTHROPIC_DEFAULT_HAIKU_MODEL=claude-haiku-4-5",
    ]


@pytest.mark.parametrize("language", NAMES)
def test_the_snippets_are_the_examples_of_the_docs(language: str) -> None:
    """So each of them is run by the tests of the docs."""
    settings = settings_of()
    edition = Edition(language, settings, translator(read_texts()[language]))
    [set_up, *others] = snippets(edition, settings, NEW_KEY)
    assert set_up.parts[0].text.startswith("curl -fsSL https://relay.example/setup.sh | bash")
    written = {
        code.text.rstrip("\n") for page in edition.pages.values() for code in page.rendered.codes
    }
    assert {one.id for one in others} >= {"claude_code", "codex", "hermes", "opencode", "curl"}
    for one in others:
        assert one.parts, one.id
        assert NEW_KEY in "".join(part.text for part in one.parts), one.id
        for part in one.parts:
            places = (part.text.replace(NEW_KEY, place) for place in (KEY, "{env:RELAY_KEY}"))
            assert written & set(places), part.text


def test_cc_switch_gets_address_key_and_a_script_for_the_limits() -> None:
    links = {one.id: one for one in import_links(settings_of(web={"name": "A & B=C"}), NEW_KEY)}
    claude = urlsplit(links["cc_switch_claude"].url)
    assert (claude.scheme, claude.netloc, claude.path) == ("ccswitch", "v1", "/import")
    fields = {name: value for name, [value] in parse_qs(claude.query, strict_parsing=True).items()}
    script = fields.pop("usageScript")
    assert b64decode(script, validate=True).decode() == USAGE_SCRIPT
    assert fields == {
        "resource": "provider", "app": "claude", "name": "A & B=C", "homepage": ADDRESS,
        "endpoint": ADDRESS, "apiKey": NEW_KEY, "usageEnabled": "true", "usageBaseUrl": ADDRESS,
        "usageAutoInterval": "15",
    }  # fmt: skip
    codex = parse_qs(urlsplit(links["cc_switch_codex"].url).query)
    assert (codex["endpoint"], codex["model"]) == ([f"{ADDRESS}/v1"], ["claude-sonnet-4-7"])
    assert [one.id for one in links.values() if NEW_KEY not in one.url] == ["vscode", "cursor"]


async def test_no_link_takes_the_key_to_this_relay(site: Live, visitor: Visitor) -> None:
    """A key in an address of ours would be in histories and logs."""
    await visitor.sign_up()
    answer = await visitor.submit("/dashboard/keys", name="laptop", lifetime="")
    [key] = re.findall(r'id="key">([^<]+)<', answer.text)
    urls = [unescape(url) for url in re.findall(r'(?:href|action|src)="([^"]+)"', answer.text)]
    assert {url.partition(":")[0] for url in urls if key in url} == {"ccswitch"}
    assert "vscode:extension/anthropic.claude-code" in urls
    assert "cursor:extension/anthropic.claude-code" in urls
    assert answer.text.count("<svg") == 2  # the mark, and the code for a phone
