"""Chinese pages: no English sentence in any of them, but names, code and quoted words."""

import asyncio
import re
from html import unescape
from pathlib import Path
from urllib.parse import quote

import pytest

from relay.gateway import refusal_counts
from relay.reload import Reloader
from relay.store.keys import KeyRules, set_rules
from tests.fakes.live import Live, RelayWith
from tests.web.administration import MODELS, PERSON, PLANS, act, new_admin
from tests.web.conftest import NewVisitor
from tests.web.seed import seed_usage
from tests.web.visitor import WEB, Visitor, ask, owner, until_logged

LATIN = re.compile(r"[A-Za-z'’]{2,}(?: [A-Za-z'’]{2,}){2,}")
# Names and examples that a page has on purpose.
ALLOWED = re.compile(r"Claude Code|Claude Desktop|Anthropic SDK|OpenAI SDK|VS Code|Install in")
PAGES = (
    "/", "/login", "/signup", "/forgot", "/status", "/dashboard", "/dashboard/keys",
    "/dashboard/usage?from=2026-04-09&to=2026-04-08", "/dashboard/usage?from=x&to=2026-04-08",
    "/dashboard/usage?range=age", "/dashboard/requests", "/dashboard/balance", "/dashboard/chat",
    "/account", "/account/log-in", "/account/thresholds", "/none",
)  # fmt: skip
ADMIN_PAGES = (
    "/admin", "/admin/people", "/admin/upstreams", "/admin/upstreams/import", "/admin/models",
    "/admin/simulator?model=sonnet", "/admin/simulator?model=none", "/admin/live",
    "/admin/failures", "/admin/backups", "/admin/audit", "/admin/codes", "/admin/announcements",
    "/admin/settings", "/admin/parts/upstreams", "/admin/parts/live", "/admin/parts/now",
)  # fmt: skip


def english(html: str) -> list[str]:
    """The English sentences of a page, without code and without words in quotation marks."""
    for hidden in ("script", "style", "code", "pre", "textarea", "title"):
        html = re.sub(rf"<{hidden}\b.*?</{hidden}>", " ", html, flags=re.DOTALL)
    html = re.sub(r'<(\w+)[^>]* lang="en".*?</\1>', " ", html, flags=re.DOTALL)
    spoken = re.findall(r' (?:aria-label|placeholder|title|data-confirm)="([^"]*)"', html)
    text = "\n".join([re.sub(r"<[^>]+>", "\n", html), *spoken])
    text = re.sub(r"“[^”]*”|'[^']*'|&#39;.*?&#39;|\[\[upstream.*", " ", unescape(text))
    return [one for one in LATIN.findall(text) if not ALLOWED.search(one)]


@pytest.fixture
async def shop(relay_with: RelayWith, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Live:
    monkeypatch.setattr(refusal_counts, "_WRITE_AFTER_SECONDS", 0.02)
    plans = [{**PLANS[0], "limits": [{"requests": 3, "per": "5h"}]}, PLANS[1]]
    backup = {"path": str(tmp_path / "backups")}
    live = await relay_with(web=WEB, plan=plans, model=MODELS, backup=backup)
    (tmp_path / "relay.toml").write_text("")
    live.app.reloading = Reloader(live.app, str(tmp_path / "relay.toml"))
    return live


@pytest.fixture
async def reader(shop: Live, another: NewVisitor) -> Visitor:
    """An administrator with usage, failures and refusals, who reads Chinese."""
    visitor = another(shop, **{"accept-language": "zh-CN"})
    await new_admin(shop, visitor)
    key = await visitor.new_key("laptop")
    assert await ask(shop, key, 1, model="no-such-model") == [404]
    user_id, key_id = await owner(shop, visitor)
    await set_rules(shop.app.database, key_id, KeyRules(models=("gpt-9",), addresses=None), 1.0)
    await shop.reload_keys()
    assert await ask(shop, key, 1) == [403]
    assert await ask(shop, shop.key, 4) == [200, 200, 200, 429]
    await seed_usage(shop.app.database, [(user_id, key_id)], 200)
    while len(await shop.app.database.select("SELECT * FROM refusal")) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return visitor


async def test_no_page_has_an_english_sentence(shop: Live, reader: Visitor) -> None:
    user_id, key_id = await owner(shop, reader)
    own = (f"/dashboard/keys/{key_id}", PERSON.format(user_id))
    found = {path: english((await reader.get(path)).text) for path in (*PAGES, *ADMIN_PAGES, *own)}
    assert {path: words for path, words in found.items() if words} == {}


async def test_refused_requests_are_explained_in_chinese(shop: Live, reader: Visitor) -> None:
    page = unescape((await reader.get("/dashboard/requests")).text)
    assert "没有模型 'no-such-model'。可用模型：claude-sonnet-4-7, claude-opus-4-8" in page
    assert "此密钥不能使用模型 'claude-sonnet-4-7'，可用的有 gpt-9" in page
    assert "上游提前关闭了连接" in page or "上游关闭了连接" in page


REFUSED: list[tuple[str, str, dict[str, str]]] = [
    ("key", "rules", {"models": "clau*de"}),
    ("key", "rules", {"models": "x " * 51}),
    ("key", "rules", {"addresses": "192.0.2.1/24"}),
    ("key", "rules", {"addresses": "home"}),
    ("key", "rules", {"limits": "requests=5"}),
    ("key", "rules", {"limits": "requests=5/1w"}),
    ("key", "rules", {"limits": "requests=0/1d"}),
    ("key", "rules", {"limits": "requests=1/1d requests=2/1d"}),
    ("key", "rules", {"concurrency": "-1"}),
    ("/admin/upstreams/import", "", {"text": "[[upstream"}),
    ("/admin/upstreams/import", "", {"text": "{}"}),
    ("/admin/upstreams/import", "", {"text": '[{"name": 5}]'}),
    ("/admin/upstreams/import", "", {"text": '[{"name": "a"}, {"name": "a"}]'}),
    ("/admin/upstreams/import", "", {"text": '{"upstream": [{}], "server": {}}'}),
    ("/admin/upstreams/import", "", {"text": '[{"name": "a", "base_url": "x"}]'}),
    ("/admin/upstreams/import", "", {"text": '[{"name": "a", "weight": "much"}]'}),
    ("/admin/upstreams/import", "", {"text": '[{"name": "a", "colour": "red"}]'}),
    ("/admin/backups", "/purge", {"before": "soon"}),
]


async def test_every_refusal_of_a_form_is_in_chinese(shop: Live, reader: Visitor) -> None:
    key = f"/dashboard/keys/{(await owner(shop, reader))[1]}"
    for page, action, fields in REFUSED:
        path, action = (key, f"/{action}") if page == "key" else (page, action)
        answer = await reader.submit(path, path + action, **fields)
        assert answer.status_code == 422, fields
        assert 'role="alert"' in answer.text, fields
        assert english(answer.text) == [], fields


async def test_words_of_the_chat_come_in_the_language(shop: Live, reader: Visitor) -> None:
    for said, shown in (
        ("All upstreams for this model are busy. Try again in a moment.",
         "此模型的上游都在忙。请稍后再试。"),
        ("<b>vendor</b> says “no”", "“<b>vendor</b> says “no””"),
    ):  # fmt: skip
        answer = await reader.get("/dashboard/chat/words", headers={"x-said": quote(said)})
        assert answer.text == shown
    assert answer.headers["content-type"].startswith("text/plain")


async def test_an_upstream_that_fails_is_described_in_chinese(shop: Live, reader: Visitor) -> None:
    await shop.create_user("other@example.org")
    key = await shop.new_key("other@example.org")
    await act(reader, "/admin/upstreams", "/admin/upstreams/main/pause")
    assert await ask(shop, key, 1) == [503]
    for path in ("/admin/upstreams", "/admin/failures", "/admin/simulator?model=sonnet"):
        assert english((await reader.get(path)).text) == []
    await until_logged(shop, 1)
