"""relay.toml: accepted and refused settings; a refusal says where and what instead."""

from pathlib import Path

import pytest

from relay import config
from relay.config import ConfigError, models, vendors
from tests.config.sections import (
    GLM,
    MODEL,
    PER_TOKEN,
    PLAN,
    PRICE,
    QUOTA,
    RULE,
    UPSTREAM,
    VENDOR,
    load,
)

S3 = """[backup.s3]
endpoint = "http://s3.example"
bucket = "b1"
access_key = "A"
secret_key = "S"
"""
WRONG = [
    # an unknown name, at every level
    ("servr = {}", "servr", "accepted here: acme, alert, alerting, backup, database, ledger"),
    ('[backup]\nevery = "5s"', "backup.every", 'at least "1m", or "off"'),
    ('[backup]\nevery = "daily"', "backup.every", "is no duration"),
    ("[backup]\nkeep = 0", "backup.keep", 'every = "off" makes none'),
    ('[backup]\npath = ""', "backup.path", "must name a folder"),
    ('[backup.s3]\nendpoint = "s3.example"', "backup.s3.bucket", "is missing"),
    (S3 + 'region = "Frankfurt am Main"', "backup.s3.region", "such as"),
    (S3 + 'prefix = "/a"', "backup.s3.prefix", "not begin with /"),
    (S3.replace('"b1"', '"a/b"'), "backup.s3.bucket", "2 to 63"),
    (S3.replace("http:", "ftp:"), "backup.s3.endpoint", "http:// or https://"),
    (S3.replace('"S"', '"$S3_SECRET"'), "backup.s3.secret_key", "write env:S3_SECRET"),
    ("[server]\nlisen = []", "server.lisen",
     "accepted here: admin_listen, cors_origins, domains, key_prefix, limits"),
    ("[server.limits]\nheads = 1", "server.limits.heads", "body, connections, "),
    ("[server.timeouts]\nbdy = 1", "server.timeouts.bdy", "body, drain, head, idle, upload, write"),
    ("[server]\ntls = { crt = '' }", "server.tls.crt", "accepted here: cert, key"),
    ("[database]\nfile = 'x'", "database.file", "accepted here: path"),
    ('[traces]\nendpoint = "localhost:4318"', "traces.endpoint", "http:// or https://"),
    ("[traces]\nratio = 2", "traces.ratio", "a share from 0 to 1"),
    ("[traces]\nheaders = { 'a b' = 'x' }", "traces.headers", "'a b' is not a header name"),
    ("[traces]\nheaders = { a = '$TOKEN' }", "traces.headers", "write env:NAME"),
    ("[log]\nlevel = 'x'", "log.level", "accepted here: access"),
    (UPSTREAM + "url = ''", "upstream[0].url", "api_key, auth, base_url, ca, cost_cap, egress"),
    (UPSTREAM + "[upstream.timeouts]\nhead = 1", "upstream[0].timeouts.head", "connect"),
    (UPSTREAM + UPSTREAM.replace('"a"', '"b"') + "x = 1", "upstream[1].x", "accepted here"),
    (UPSTREAM + "limits = [{ per = '1m', request = 1 }]", "upstream[0].limits[0].request",
     "per, refill, requests, tokens"),
    (MODEL + "alias = []", "model[0].alias", "aliases, answer_model, context_window"),
    (MODEL + "routes = [{ to = 'a' }]", "model[0].routes[0].to", "model, upstream"),
    (MODEL + "price = { in = 1 }", "model[0].price.in", "cache_read, cache_write, cache_write_1h"),
    (MODEL + "price = { input = 1, output = 2, inference_geo = { us = -1 } }",
     "model[0].price.inference_geo", "0 or more"),
    (PLAN + "exclude = ['slow']", "plan[0].exclude[0]", "web_search"),
    (PLAN + "keys = 1", "plan[0].keys", "limits, max_concurrency, max_keys, name"),
    ("[pool]\nretries = 1", "pool.retries", "grace, keep_alive, longest_cooldown, queue, sticky"),
    (VENDOR + "host = 'a'", "vendor[0].host", "hosts, models, name, quota, rules, terms"),
    (VENDOR + RULE + "text = 'a'", "vendor[1].rules[0].text", "code, reason, says, scope, seconds"),
    (QUOTA + "method = 'POST'", "vendor[0].quota.method", "every, left, path"),
    # another type
    ("[pool]\ntries = 1.5", "pool.tries", "a whole number"),
    ("[pool]\nsticky = 300", "pool.sticky", 'a duration in quotes, such as "5m"'),
    (RULE + "code = [1302]", "vendor[0].rules[0].code[0]", "text in quotes"),
    (RULE + "says = ['a']", "vendor[0].rules[0].says", "text in quotes"),
    (VENDOR + "quota = '/left'", "vendor[0].quota", "a table"),
    (UPSTREAM + "egress = 1080", "upstream[0].egress", "a URL in quotes"),
    ("server = 1", "server", "a table"),
    ("upstream = {}", "upstream", "a list"),
    ("[server]\nlisten = '127.0.0.1:80'", "server.listen", "a list"),
    ("[server]\nlisten = [80]", "server.listen[0]", "an address in quotes"),
    ("[server]\npublic_url = 1", "server.public_url", "a URL in quotes"),
    ("[server.limits]\nbody = '32M'", "server.limits.body", "a whole number"),
    ("[server.limits]\nbody = 1.5", "server.limits.body", "a whole number"),
    ("[server.timeouts]\nidle = '75s'", "server.timeouts.idle", "a number"),
    ("[log]\naccess = 'yes'", "log.access", "true or false"),
    (UPSTREAM + "weight = '1'", "upstream[0].weight", "a whole number"),
    (UPSTREAM + "headers = []", "upstream[0].headers", "a table"),
    (UPSTREAM + "headers = { a = 1 }", "upstream[0].headers.a", "text in quotes"),
    (MODEL + "created = 2026-01-01", "model[0].created", "a date in quotes"),
    (MODEL + "price = { input = '1', output = 2 }", "model[0].price.input", "a number"),
    (PLAN + "max_keys = true", "plan[0].max_keys", "a whole number"),
    # a value out of its range
    ("[server]\nlisten = []", "server.listen", "at least one address"),
    ("[server]\nlisten = ['8080']", "server.listen[0]", "host:port, [::]:port or unix:/path"),
    ("[server]\nlisten = ['h:1', 'h:65536']", "server.listen[1]", "'h:65536' is no address"),
    ("[server]\nadmin_listen = 'unix:x'", "server.admin_listen", "unix:/path"),
    ("[server]\npublic_url = 'relay.example'", "server.public_url", "http:// or https://"),
    ("[server]\npublic_url = 'https://h/\"'", "server.public_url", "without spaces or quotes"),
    ("[server]\nkey_prefix = 'a b'", "server.key_prefix", "letters, digits, - and _"),
    ("[server.limits]\nhead = 0", "server.limits.head", "at least 1"),
    ("[server.limits]\nin_flight = 0", "server.limits.in_flight", "at least 1"),
    ("[server.limits]\nconnections = -1", "server.limits.connections", "at least 0"),
    ("[server.limits]\nloop_lag = inf", "server.limits.loop_lag", "finite"),
    ("[server.limits]\nuploads_per_key = 0", "server.limits.uploads_per_key", "at least 1"),
    ("[server.limits]\nbody = 70_000_000", "server.limits.held_per_key", "at least body"),
    ("[server.limits]\nheld = 60_000_000", "server.limits.held", "at least held_per_key"),
    ("[database]\npath = ''", "database.path", "must be a file"),
    ("[database]\npath = ':memory:'", "database.path", "must be a file"),
    ("[database]\nretention_days = 0", "database.retention_days", "at least 1"),
    (PLAN + "max_concurrency = -1", "plan[0].max_concurrency", "0 (no cap) or more"),
    ("[server.timeouts]\ndrain = 0", "server.timeouts.drain", "more than 0 seconds"),
    ("[server.timeouts]\nhead = inf", "server.timeouts.head", "finite"),
    ("[server.timeouts]\nhead = nan", "server.timeouts.head", "more than 0"),
    (UPSTREAM + "auth = 'basic'", "upstream[0].auth", '"x-api-key" or "bearer"'),
    (UPSTREAM + "weight = 0", "upstream[0].weight", "at least 1"),
    (UPSTREAM + "max_concurrency = -1", "upstream[0].max_concurrency", "0 (no cap) or more"),
    (UPSTREAM + "timeouts = { connect = -1 }", "upstream[0].timeouts.connect", "more than 0"),
    (UPSTREAM + "headers = { Host = 'x' }", "upstream[0].headers", "set by the relay itself"),
    (UPSTREAM + "headers = { 'a b' = 'x' }", "upstream[0].headers", "'a b' is not a header"),
    (UPSTREAM + 'headers = { a = "x\\r\\nb: c" }', "upstream[0].headers", "not printable"),
    (UPSTREAM.replace('"a"', '"a/b"'), "upstream[0].name", "letters, digits"),
    (UPSTREAM.replace("http://a", "ftp://a"), "upstream[0].base_url", "http:// or https://"),
    (UPSTREAM.replace("http://a", "http://u:p@a"), "upstream[0].base_url", "nothing else"),
    (UPSTREAM.replace("http://a", "http://a?b"), "upstream[0].base_url", "nothing else"),
    (UPSTREAM.replace("http://a", "http://a:99999"), "upstream[0].base_url", "host or port"),
    (UPSTREAM.replace("http://a", "http://[a"), "upstream[0].base_url", "host or port"),
    (UPSTREAM.replace("http://a", "http://a/b c"), "upstream[0].base_url", "without spaces"),
    (UPSTREAM.replace("http://a", "http://a/v1"), "upstream[0].base_url", "not include /v1"),
    (UPSTREAM.replace("http://a", "http://a/b/v1/"), "upstream[0].base_url", "not include /v1"),
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
    ("[pool]\ntries = 0", "pool.tries", "from 1 to 5"),
    ("[pool]\ntries = 6", "pool.tries", "from 1 to 5"),
    ("[pool]\nwait = -1", "pool.wait", "0 seconds (no waiting) or more"),
    ("[pool]\nwait = inf", "pool.wait", "finite"),
    ("[pool]\nqueue = -1", "pool.queue", "0 (no queue) or more"),
    ("[pool]\nsticky = '5 m'", "pool.sticky", '30s, 5h, 7d, or "off"'),
    ("[pool]\ngrace = 0", "pool.grace", "more than 0 seconds"),
    ("[pool]\nkeep_alive = nan", "pool.keep_alive", "more than 0 seconds"),
    ("[pool]\nlongest_cooldown = 'off'", "pool.longest_cooldown", "30s, 5h, 7d"),
    ("[[vendor]]\nname = 'a b'", "vendor[0].name", "letters, digits"),
    (VENDOR + "hosts = ['https://a']", "vendor[0].hosts", "lower case, such as api.example.com"),
    (VENDOR + "hosts = ['A.b']", "vendor[0].hosts", "'A.b' is not a host"),
    (VENDOR + "thinking = ''", "vendor[0].thinking", "letters, digits"),
    (VENDOR + "usage = 'both'", "vendor[0].usage", '"exclusive" or "inclusive"'),
    (VENDOR + "time_zone = 'Shanghai'", "vendor[0].time_zone", "such as Asia/Shanghai"),
    (VENDOR + "time_zone = '../UTC'", "vendor[0].time_zone", "such as Asia/Shanghai"),
    (VENDOR + "time_zone = 'Asia'", "vendor[0].time_zone", "such as Asia/Shanghai"),
    (VENDOR + "models = ['']", "vendor[0].models", 'such as "glm-*"'),
    (RULE + "[[vendor.rules]]\nscope = 'all'\nreason = 'r'", "vendor[0].rules[1].scope",
     '"caller" or "request" or "feature" or "failure" or "model" or "account" or "credential"'),
    (RULE.replace('"full"', '""'), "vendor[0].rules[0].reason", "1 to 100 characters"),
    (RULE.replace('"full"', '"a\\nb"'), "vendor[0].rules[0].reason", "a short line of text"),
    (RULE + "status = 4290", "vendor[0].rules[0].status", "from 200 to 599"),
    (RULE + "code = ['']", "vendor[0].rules[0].code", "leave it out to match any"),
    (RULE + "says = '(a'", "vendor[0].rules[0].says", "no regular expression"),
    (RULE + "says = ''", "vendor[0].rules[0].says", "leave it out for any message"),
    (RULE + "seconds = 0", "vendor[0].rules[0].seconds", "more than 0 seconds"),
    (QUOTA.replace("/left", "left"), "vendor[0].quota.path", 'must begin with "/"'),
    (QUOTA.replace('"left"', '" "'), "vendor[0].quota.left", "usage.remaining"),
    (QUOTA + "every = 59", "vendor[0].quota.every", "at least 60 seconds"),
    (MODEL + "answer_model = 'own'", "model[0].answer_model", '"served" or "asked"'),
    (MODEL + "accepts = { effort = 'high' }", "model[0].accepts.effort",
     "accepted here: efforts, prefill, sampling, structured, system_turns, thinking, web_search"),
    (MODEL + "accepts = ['prefill']", "model[0].accepts", "a table"),
    (MODEL + "accepts = { prefill = 'no' }", "model[0].accepts.prefill", "true or false"),
    (MODEL + "accepts = { sampling = true }", "model[0].accepts.sampling",
     '"both" or "one" or "none"'),
    (MODEL + "accepts = { thinking = 'enabled' }", "model[0].accepts.thinking",
     '"adaptive" or "budget" or "none"'),
    (MODEL + "accepts = { efforts = 'high' }", "model[0].accepts.efforts", "a list"),
    (MODEL + "accepts = { efforts = ['low', 'huge'] }", "model[0].accepts.efforts[1]",
     '"low" or "medium" or "high" or "xhigh" or "max"'),
    (UPSTREAM + MODEL + "routes = [{ upstream = 'a', accepts = { web_search = 1 } }]",
     "model[0].routes[0].accepts.web_search", "true or false"),
    ("[responses]\nstore = 'disk'", "responses.store", '"off" or "memory" or "database"'),
    ("[responses]\nstore = 'database'", "responses.key", "openssl rand -hex 32"),
    ("[responses]\nkey = '$KEY'", "responses.key", "write env:KEY"),
    ("[responses]\nkeep = 'long'", "responses.keep", "long"),
    ("[responses]\nmemory = 5", "responses.memory", "at least 1048576"),
    ("[responses]\nconversation = 0", "responses.conversation", "at least 1"),
    ("[responses]\nper_account = 0", "responses.per_account", "at least 1"),
    (PLAN + "cache_breakpoints = 4", "plan[0].cache_breakpoints", "true or false"),
    # something missing
    ("[[vendor]]", "vendor[0].name", "is missing; write text in quotes"),
    (VENDOR + "rules = [{ reason = 'r' }]", "vendor[0].rules[0].scope", "is missing"),
    (VENDOR + "quota = { path = '/' }", "vendor[0].quota.left", "is missing"),
    ("[server]\ntls = { cert = 'c' }", "server.tls.key", "is missing; write text in quotes"),
    ('[[upstream]]\nname = "a"\nbase_url = "http://a"', "upstream[0].api_key", "is missing"),
    ("[[model]]", "model[0].id", "is missing; write text in quotes"),
    (MODEL + "routes = [{ model = 'x' }]", "model[0].routes[0].upstream", "is missing"),
    (MODEL + "price = { input = 1 }", "model[0].price.output", "is missing; write a number"),
    (PLAN + "limits = [{ requests = 1 }]", "plan[0].limits[0].per", "is missing"),
    # one setting against another
    (UPSTREAM + UPSTREAM, "upstream", "name 'a' is given twice"),
    (PLAN + PLAN, "plan", "id 'p' is given twice"),
    (MODEL + "aliases = ['m']", "model[0].aliases", "'m' is given twice: this model has"),
    (MODEL + MODEL, "model[1].id", "'m' is given twice: model 'm' has it already; leave out one"),
    (MODEL + "aliases = ['x-*']\n[[model]]\nid = 'n'\naliases = ['y', 'x-*']", "model[1].aliases",
     "'x-*' is given twice: model 'm' has it already; leave out one"),
    (MODEL + "aliases = ['x-*-y']", "model[0].aliases", "'x-*-y' has a * before its end; only"),
    (MODEL + "aliases = ['**']", "model[0].aliases", "'**' has a * before its end"),
    (MODEL + "aliases = ['']", "model[0].aliases", "'' is no model id: printable ASCII"),
    ("[[model]]\nid = 'm*'", "model[0].id", "'m*' is no model id: only aliases may have a *"),
    (UPSTREAM + MODEL + "routes = [{ upstream = 'a', model = 'n*' }]", "model[0].routes[0].model",
     "'n*' is no model id: only aliases may have a *"),
    (MODEL + "list_1m = true", "model[0].list_1m", "needs a context_window of 1000000 or more"),
    (MODEL + "list_1m = true\ncontext_window = 1000000\naliases = ['m[1m]']", "model[0].list_1m",
     "'m[1m]' is an id or alias already, so it would be listed twice; leave out one"),
    (UPSTREAM + MODEL + "routes = [{ upstream = 'b' }]", "model[0].routes[0].upstream",
     "no upstream is named 'b'; there are: a"),
    (VENDOR + VENDOR, "vendor", "name 'v' is given twice"),
    (VENDOR + UPSTREAM + "vendor = 'w'", "upstream[0].vendor", "no vendor is named 'w'; there are"),
    (GLM + MODEL + "routes = [{ upstream = 'a' }]", "model[0].routes[0].model",
     "vendor 'glm' serves glm-*"),
    (GLM + MODEL + "routes = [{ upstream = 'a', model = 'glm-9' }, { upstream = 'a' }]",
     "model[0].routes[1].model", "not 'm'; write the name that it has there"),
    (MODEL + PER_TOKEN, "model[0].price", "plan 'p' bills per token, so m needs a price"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "words"), WRONG, ids=[row[1] for row in WRONG])
def test_a_wrong_setting_is_named_with_what_is_accepted(
    tmp_path: Path, text: str, path: str, words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.path == path
    assert words in caught.value.reason
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
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
    assert settings.pool == config.PoolSettings()
    assert (settings.pool.tries, settings.pool.wait, settings.pool.sticky) == (3, 30.0, "5m")


def test_a_relative_file_is_relative_to_relay_toml(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "upstream.key").write_text("sk-from-a-file\n")
    text = (
        '[server]\ntls = { cert = "c.pem", key = "/k.pem" }\n'
        + UPSTREAM.replace('"k"', '"file:upstream.key"')
        + 'ca = "ca.pem"\negress = "file:proxy.url"\n'
    )
    (folder / "relay.toml").write_text(text)
    (folder / "proxy.url").write_text("http://proxy:3128\n")
    monkeypatch.chdir(tmp_path)
    settings = config.load("etc/relay.toml")
    assert settings.database.path == str(folder / "relay.db")
    assert settings.server.tls == config.TlsSettings(cert=str(folder / "c.pem"), key="/k.pem")
    assert settings.upstream[0].ca == str(folder / "ca.pem")
    assert settings.upstream[0].credential().reveal() == "sk-from-a-file"
    assert settings.upstream[0].proxy() == config.ProxyUrl("http", "proxy", 3128)


def test_a_price_is_required_only_by_plans_that_bill_by_it(tmp_path: Path) -> None:
    assert load(tmp_path, MODEL + PLAN).model[0].price is None
    assert load(tmp_path, PRICE + PER_TOKEN).model[0].price is not None


@pytest.mark.parametrize(
    "text",
    [
        "[pool]\ntries = 1\nwait = 0\nqueue = 0\nsticky = 'off'",
        "[server]\nadmin_listen = ''",
        RULE + "status = 403\ncode = ['1302']\nsays = '(?i)limit .* reached'\nseconds = 0.5",
        QUOTA + "every = 60",
        VENDOR + "time_zone = 'Asia/Shanghai'\nhosts = ['localhost', '10.0.0.1', 'a-b.example']",
        UPSTREAM + "vendor = 'v'\n" + VENDOR,
        MODEL + "answer_model = 'asked'",
    ],
)
def test_extreme_values_are_accepted(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_a_route_must_send_a_name_that_its_vendor_serves(tmp_path: Path) -> None:
    routed = MODEL + 'aliases = ["n"]\nroutes = [{ upstream = "a", model = "GLM-9" }]\n'
    assert load(tmp_path, GLM + routed).model[0].routes is not None
    assert load(tmp_path, GLM + MODEL).model[0].routes is None  # to whoever serves it
    for freed in ('vendor = "generic"\n', '[[vendor]]\nname = "glm"\nmodels = ["m"]\n'):
        load(tmp_path, GLM + freed + MODEL + 'routes = [{ upstream = "a" }]\n')


def test_admin_listen_must_not_be_in_listen() -> None:
    with pytest.raises(config.ConfigError, match=r"server\.admin_listen: is in server\.listen"):
        config.parse({"server": {"listen": ["[::1]:1"], "admin_listen": "[::1]:1"}})


def test_a_responses_key_is_long_enough_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.ResponsesSettings().secret() is None
    settings = config.ResponsesSettings(key="env:SOME_KEY")
    assert "SOME_KEY" not in repr(settings)
    monkeypatch.setenv("SOME_KEY", "k" * 31)
    with pytest.raises(ValueError, match="fewer than 32 characters"):
        settings.secret()
    monkeypatch.setenv("SOME_KEY", "k" * 32)
    key = settings.secret()
    assert key is not None
    assert key.reveal() == "k" * 32


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        ("[[vendor", "Expected"),
        ('[[vendor]]\nhost = "a"', "unknown"),
    ],
    ids=["missing", "not TOML", "unknown setting"],
)
def test_a_damaged_installation_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, words: str
) -> None:
    file = tmp_path / "shipped.toml"
    if content is not None:
        file.write_text(content)
    for module, read in ((models, models._shipped), (vendors, vendors.shipped)):
        monkeypatch.setattr(module, "_SHIPPED", file)
        with pytest.raises(ConfigError, match=words) as caught:
            read.__wrapped__()
        assert "shipped.toml" in str(caught.value)


def test_the_generic_vendor_needs_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vendors.toml").write_text('[[vendor]]\nname = "v"\n')
    monkeypatch.setattr(vendors, "_SHIPPED", tmp_path / "vendors.toml")
    assert [vendor.name for vendor in vendors.shipped.__wrapped__()] == ["v", "generic"]
