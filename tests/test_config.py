"""relay.toml: what is taken, what is refused, and that the refusal says where and what instead."""

from pathlib import Path

import msgspec
import pytest

from relay import config
from relay.config import Address, ConfigError

ROOT = Path(__file__).parent.parent
UPSTREAM = '[[upstream]]\nname = "a"\nbase_url = "http://a"\napi_key = "k"\n'
MODEL = '[[model]]\nid = "m"\n'
PLAN = '[[plan]]\nid = "p"\n'
PER_TOKEN = '[[plan]]\nid = "p"\nbilling = "per-token"\n'
PRICE = MODEL + "price = { input = 1.0, output = 2.0 }\n"


def load(tmp_path: Path, text: str) -> config.Settings:
    (tmp_path / "relay.toml").write_text(text, encoding="utf-8")
    return config.load(tmp_path / "relay.toml")


WRONG = [
    # an unknown name, at every level
    ("servr = {}", "servr", "unknown setting; accepted here: database, log, model, plan, server"),
    ("[server]\nlisen = []", "server.lisen", "accepted here: admin_listen, key_prefix, limits"),
    ("[server.limits]\nheads = 1", "server.limits.heads", "body, fields, head, request_line"),
    ("[server.timeouts]\nbdy = 1", "server.timeouts.bdy", "body, drain, head, idle, write"),
    ("[server]\ntls = { crt = '' }", "server.tls.crt", "accepted here: cert, key"),
    ("[database]\nfile = 'x'", "database.file", "accepted here: path"),
    ("[log]\nlevel = 'x'", "log.level", "accepted here: access"),
    (UPSTREAM + "url = ''", "upstream[0].url", "api_key, auth, base_url, ca, headers"),
    (UPSTREAM + "[upstream.timeouts]\nhead = 1", "upstream[0].timeouts.head", "connect"),
    (UPSTREAM + UPSTREAM.replace('"a"', '"b"') + "x = 1", "upstream[1].x", "accepted here"),
    (UPSTREAM + "limits = [{ per = '1m', request = 1 }]", "upstream[0].limits[0].request",
     "per, refill, requests, tokens"),
    (MODEL + "alias = []", "model[0].alias", "aliases, context_window"),
    (MODEL + "routes = [{ to = 'a' }]", "model[0].routes[0].to", "model, upstream"),
    (MODEL + "price = { in = 1 }", "model[0].price.in", "cache_read, cache_write, input, output"),
    (PLAN + "keys = 1", "plan[0].keys", "limits, max_concurrency, max_keys, name"),
    # another type
    ("server = 1", "server", "a table"),
    ("upstream = {}", "upstream", "a list"),
    ("[server]\nlisten = '127.0.0.1:80'", "server.listen", "a list"),
    ("[server]\nlisten = [80]", "server.listen[0]", "text in quotes"),
    ("[server]\npublic_url = 1", "server.public_url", "text in quotes"),
    ("[server.limits]\nbody = '32M'", "server.limits.body", "a whole number"),
    ("[server.limits]\nbody = 1.5", "server.limits.body", "a whole number"),
    ("[server.timeouts]\nidle = '75s'", "server.timeouts.idle", "a number"),
    ("[log]\naccess = 'yes'", "log.access", "true or false"),
    (UPSTREAM + "weight = '1'", "upstream[0].weight", "a whole number"),
    (UPSTREAM + "headers = []", "upstream[0].headers", "a table"),
    (UPSTREAM + "headers = { a = 1 }", "upstream[0].headers[...]", "text in quotes"),
    (MODEL + "created = 2026-01-01", "model[0].created", "text in quotes"),
    (MODEL + "price = { input = '1', output = 2 }", "model[0].price.input", "a number"),
    (PLAN + "max_keys = true", "plan[0].max_keys", "a whole number"),
    # a value out of its range
    ("[server]\nlisten = []", "server.listen", "at least one address"),
    ("[server]\nlisten = ['8080']", "server.listen", "host:port, [::]:port or unix:/path"),
    ("[server]\nlisten = ['h:1', 'h:65536']", "server.listen", "'h:65536' is no address"),
    ("[server]\nadmin_listen = 'unix:x'", "server.admin_listen", "unix:/path"),
    ("[server]\npublic_url = 'relay.example'", "server.public_url", "http:// or https://"),
    ("[server]\npublic_url = 'https://h/\"'", "server.public_url", "without spaces or quotes"),
    ("[server]\nkey_prefix = 'a b'", "server.key_prefix", "letters, digits, - and _"),
    ("[server.limits]\nhead = 0", "server.limits.head", "at least 1"),
    ("[server.timeouts]\ndrain = 0", "server.timeouts.drain", "more than 0 seconds"),
    ("[server.timeouts]\nhead = inf", "server.timeouts.head", "finite"),
    ("[server.timeouts]\nhead = nan", "server.timeouts.head", "more than 0"),
    (UPSTREAM + "auth = 'basic'", "upstream[0].auth", '"x-api-key" or "bearer"'),
    (UPSTREAM + "weight = 0", "upstream[0].weight", "at least 1"),
    (UPSTREAM + "max_concurrency = -1", "upstream[0].max_concurrency", "0 (no cap) or more"),
    (UPSTREAM + "timeouts = { connect = -1 }", "upstream[0].timeouts.connect", "more than 0"),
    (UPSTREAM + "headers = { Host = 'x' }", "upstream[0].headers", "set by the relay itself"),
    (UPSTREAM + "headers = { 'a b' = 'x' }", "upstream[0].headers", "'a b' is no header"),
    (UPSTREAM + 'headers = { a = "x\\r\\nb: c" }', "upstream[0].headers", "not printable"),
    (UPSTREAM.replace('"a"', '"a/b"'), "upstream[0].name", "letters, digits"),
    (UPSTREAM.replace("http://a", "ftp://a"), "upstream[0].base_url", "http:// or https://"),
    (UPSTREAM.replace("http://a", "http://u:p@a"), "upstream[0].base_url", "nothing else"),
    (UPSTREAM.replace("http://a", "http://a?b"), "upstream[0].base_url", "nothing else"),
    (UPSTREAM.replace("http://a", "http://a:99999"), "upstream[0].base_url", "host or port"),
    (UPSTREAM.replace("http://a", "http://[a"), "upstream[0].base_url", "host or port"),
    (UPSTREAM.replace("http://a", "http://a/b c"), "upstream[0].base_url", "without spaces"),
    (UPSTREAM.replace("http://a", "http://a/v1"), "upstream[0].base_url", "ends before /v1"),
    (UPSTREAM.replace("http://a", "http://a/b/v1/"), "upstream[0].base_url", "ends before /v1"),
    (UPSTREAM.replace("http://a", "http://a/v1/messages"), "upstream[0].base_url", "appends"),
    (UPSTREAM.replace('"k"', '"$NAME"'), "upstream[0].api_key", "write env:NAME"),
    (UPSTREAM.replace('"k"', '"${NAME}"'), "upstream[0].api_key", "write env:NAME"),
    ('[[model]]\nid = "a b"', "model[0].id", "printable ASCII without spaces"),
    (MODEL + "aliases = ['ok', 'ö']", "model[0].aliases", "'ö' is no model id"),
    (MODEL + "created = 'May 2026'", "model[0].created", "2026-01-31"),
    (MODEL + "routes = []", "model[0].routes", "at least one upstream"),
    (MODEL + "price = { input = -1, output = 2 }", "model[0].price.input", "0 or more"),
    (MODEL + "price = { input = 1, output = nan }", "model[0].price.output", "0 or more"),
    ('[[plan]]\nid = ""', "plan[0].id", "letters, digits"),
    (PLAN + "max_keys = 0", "plan[0].max_keys", "at least 1"),
    (PLAN + "enforce = 'all'", "plan[0].enforce", '"key" or "account"'),
    (PLAN + "billing = 'free'", "plan[0].billing", '"subscription" or "per-token"'),
    (PLAN + "limits = [{ requests = 1, per = '5 h' }]", "plan[0].limits[0].per", "30s, 5h, 7d"),
    (PLAN + "limits = [{ per = '5h' }]", "plan[0].limits[0]", "either requests or tokens"),
    (PLAN + "limits = [{ requests = 0, per = '5h' }]", "plan[0].limits[0]", "at least 1"),
    (PLAN + "limits = [{ requests = 1, per = '5h', refill = 'x' }]", "plan[0].limits[0].refill",
     '"smooth" or "window"'),
    # something missing
    ("[server]\ntls = { cert = 'c' }", "server.tls.key", "is missing; write text in quotes"),
    ('[[upstream]]\nname = "a"\nbase_url = "http://a"', "upstream[0].api_key", "is missing"),
    ("[[model]]", "model[0].id", "is missing; write text in quotes"),
    (MODEL + "routes = [{ model = 'x' }]", "model[0].routes[0].upstream", "is missing"),
    (MODEL + "price = { input = 1 }", "model[0].price.output", "is missing; write a number"),
    (PLAN + "limits = [{ requests = 1 }]", "plan[0].limits[0].per", "is missing"),
    # one setting against another
    (UPSTREAM + UPSTREAM, "upstream", "name 'a' is given twice"),
    (PLAN + PLAN, "plan", "id 'p' is given twice"),
    (MODEL + "aliases = ['m']", "model", "id 'm' is given twice"),
    (UPSTREAM + MODEL + "routes = [{ upstream = 'b' }]", "model[0].routes[0].upstream",
     "no upstream is named 'b'; there are: a"),
    (MODEL + PER_TOKEN, "model[0].price", "plan 'p' bills per token, so m needs a price"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "words"), WRONG, ids=[row[1] for row in WRONG])
def test_a_wrong_setting_is_named_by_its_path_with_what_is_accepted(
    tmp_path: Path, text: str, path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.path == path
    assert words in caught.value.reason
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path: Path) -> None:
    for name, content, words in [
        ("none.toml", None, "cannot read"),
        ("broken.toml", b"[server\n", "no valid TOML"),
        ("twice.toml", b"[log]\n[log]\n", "no valid TOML"),
        ("latin.toml", b'name = "\xe4"\n', "not UTF-8"),
    ]:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=words) as caught:
            config.load(tmp_path / name)
        assert caught.value.path == ""
        assert name in caught.value.reason


def test_an_empty_file_has_every_default(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert settings.server.listen == ["127.0.0.1:8080"]
    assert settings.server.key_prefix == "sk-llmapi-"
    assert settings.server.limits.body == 32 * 1024 * 1024
    assert (settings.upstream, settings.model, settings.plan) == ([], [], [])


def test_a_relative_file_is_looked_for_beside_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "upstream.key").write_text("sk-from-a-file\n")
    text = (
        '[server]\ntls = { cert = "c.pem", key = "/k.pem" }\n'
        + UPSTREAM.replace('"k"', '"file:upstream.key"')
        + 'ca = "ca.pem"\n'
    )
    (folder / "relay.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    settings = config.load("etc/relay.toml")
    assert settings.database.path == str(folder / "relay.db")
    assert settings.server.tls == config.Tls(cert=str(folder / "c.pem"), key="/k.pem")
    assert settings.upstream[0].ca == str(folder / "ca.pem")
    assert settings.upstream[0].credential().reveal() == "sk-from-a-file"


def test_a_price_is_asked_for_only_by_plans_that_bill_by_it(tmp_path: Path) -> None:
    assert load(tmp_path, MODEL + PLAN).model[0].price is None
    assert load(tmp_path, PRICE + PER_TOKEN).model[0].price is not None


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("relay.example:0", Address("relay.example", 0)),
        ("[::]:443", Address("::", 443)),
        ("unix:/run/relay.sock", Address("", 0, "/run/relay.sock")),
    ],
)
def test_an_address_is_read_and_written_alike(text: str, where: Address) -> None:
    assert config.address(text) == where
    assert str(where) == text


def test_secrets_are_masked_and_references_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = UPSTREAM.replace('"k"', '"sk-canary-1"') + (
        'headers = { "X-Goog-Api-Key" = "sk-canary-2", "anthropic-beta" = "shown" }\n'
    )
    text += UPSTREAM.replace('"a"', '"b"').replace('"k"', '"env:SOME_NAME"')
    tree = config.effective(load(tmp_path, text))
    assert "sk-canary" not in str(tree)
    assert tree["upstream"][0]["headers"]["anthropic-beta"] == "shown"
    assert tree["upstream"][1]["api_key"] == "env:SOME_NAME"


def test_a_credential_never_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NAME", "sk-canary")
    upstream = config.Upstream(name="a", base_url="http://a", api_key="env:SOME_NAME")
    credential = upstream.credential()
    assert credential.reveal() == "sk-canary"
    assert "canary" not in f"{credential!r} {credential} {upstream!r}"
    literal = config.Upstream(name="a", base_url="http://a", api_key="sk-canary")
    assert "canary" not in repr(config.Settings(upstream=[literal]))


def test_every_setting_is_shown_by_the_effective_settings(tmp_path: Path) -> None:
    tree = config.effective(load(tmp_path, UPSTREAM + PRICE + PLAN))

    def names(section: type[msgspec.Struct]) -> set[str]:
        return set(section.__struct_fields__)

    assert set(tree) == names(config.Settings)
    assert set(tree["server"]["timeouts"]) == names(config.ServerTimeouts)
    assert set(tree["upstream"][0]) == names(config.Upstream)
    assert set(tree["model"][0]["price"]) == names(config.Price)


@pytest.mark.skipif(not (ROOT / "relay.toml").exists(), reason="no relay.toml in the root yet")
def test_the_shipped_file_loads_and_has_the_products_plans_and_models() -> None:
    settings = config.load(ROOT / "relay.toml")
    limits = {
        plan.id: {limit.per: limit.requests for limit in plan.limits if limit.requests}
        for plan in settings.plan
    }
    assert [(each.get("5h"), each.get("7d")) for each in limits.values()] == [
        (40, 200), (400, 2_000), (1_200, 6_000), (3_000, 15_000),
    ]  # fmt: skip
    assert {model.id for model in settings.model} == {
        "claude-opus-4-8", "claude-sonnet-4-7", "claude-haiku-4-5",
    }  # fmt: skip
