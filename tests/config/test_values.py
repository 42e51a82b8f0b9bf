"""Durations, addresses and proxy URLs: how they are written and what they mean."""

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import config
from relay.config import Address, AdminAddress, ConfigError, Duration, ProxyUrl
from relay.config.values import DurationOrOff
from relay.net.server import Bounds
from relay.net.upstream.connection import Origin
from relay.wire.events import Limits

# --- durations and addresses --------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("5h", 18_000), ("7d", 604_800)]
)
def test_a_duration_is_its_text_and_its_seconds(text: str, seconds: int) -> None:
    for value in (Duration(text), DurationOrOff(text)):
        assert (value, value.seconds) == (text, seconds)


def test_off_is_a_duration_only_where_it_is_allowed() -> None:
    assert (DurationOrOff("off"), DurationOrOff("off").seconds) == ("off", 0)
    with pytest.raises(ValueError, match="'off' is no duration"):
        Duration("off")


@pytest.mark.parametrize(
    ("text", "host", "port", "path"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, None),
        ("relay.example:0", "relay.example", 0, None),
        ("[::]:443", "::", 443, None),
        ("unix:/run/relay.sock", "", 0, "/run/relay.sock"),
    ],
)
def test_an_address_is_its_text_and_its_parts(
    text: str, host: str, port: int, path: str | None
) -> None:
    for address in (Address(text), AdminAddress(text)):
        assert (address, address.host, address.port, address.path) == (text, host, port, path)
    if path is None:
        assert Address.tcp(host, port) == text


def test_no_address_is_an_empty_text() -> None:
    nothing = AdminAddress("")
    assert not nothing
    assert (nothing.host, nothing.port, nothing.path) == ("", 0, None)
    with pytest.raises(ValueError, match="is no address"):
        Address("")


def test_settings_hold_parsed_values() -> None:
    settings = config.parse(
        {
            "server": {"listen": ["[::1]:80"], "admin_listen": ""},
            "pool": {"sticky": "off", "longest_cooldown": "2h"},
            "plan": [{"id": "p", "limits": [{"requests": 1, "per": "5h"}]}],
            "responses": {"keep": "1d"},
        }
    )
    assert (settings.server.listen[0].host, settings.server.admin_listen.host) == ("::1", "")
    assert settings.plan[0].limits[0].per.seconds == 18_000
    assert (settings.pool.sticky.seconds, settings.pool.longest_cooldown.seconds) == (0, 7_200)
    assert settings.responses.keep.seconds == 86_400


def test_defaults_without_settings_are_those_of_the_settings() -> None:
    """Bounds, limits and timeouts have the same defaults where no settings are given."""
    limits, times = config.HeadLimitSettings(), config.ServerTimeoutSettings()
    assert Bounds() == Bounds(
        head=Limits(request_line=limits.request_line, head=limits.head, fields=limits.fields),
        body=limits.body,
        head_time=times.head,
        body_time=times.body,
        idle_time=times.idle,
        write_time=times.write,
    )
    upstream = config.UpstreamTimeoutSettings()
    assert Origin("a", 1) == Origin(
        "a",
        1,
        connect_time=upstream.connect,
        first_byte_time=upstream.first_byte,
        silence_time=upstream.silence,
        idle_time=upstream.idle,
    )


# --- proxies ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://proxy:3128", ("http", "proxy", 3128, "", "")),
        ("http://PROXY:3128", ("http", "proxy", 3128, "", "")),
        ("http://only-user@proxy:1", ("http", "proxy", 1, "only-user", "")),
        ("http://user:@proxy:3128", ("http", "proxy", 3128, "user", "")),
        ("socks5://a:b@10.0.0.1:1080", ("socks5", "10.0.0.1", 1080, "a", "b")),
        (
            "socks5://user:p%40ss%2Fword@127.0.0.1:1080",
            ("socks5", "127.0.0.1", 1080, "user", "p@ss/word"),
        ),
        ("socks5h://a%40b:%3A%2F%25@[::1]:65535", ("socks5h", "::1", 65535, "a@b", ":/%")),
    ],
)
def test_a_proxy_url_is_read_into_its_parts(url: str, parts: tuple[object, ...]) -> None:
    upstream = config.UpstreamSettings(name="a", base_url="http://a", api_key="k", egress=url)
    proxy = upstream.proxy()
    assert proxy is not None
    assert (proxy.scheme, proxy.host, proxy.port, proxy.user, proxy.password) == parts


NOT_A_PROXY = [
    "", "canary", "canary:1080", "proxy:3128", "https://u:canary@proxy:3128",
    "socks4://u:canary@proxy:1080", "HTTP://u:canary@proxy:3128", "http://u:canary@proxy",
    "http://u:canary@proxy:0", "http://u:canary@proxy:65536", "http://u:canary@proxy:70000",
    "http://u:canary@proxy:canary", "http://u:canary@proxy:3128/", "http://u:canary@proxy:3128?a",
    "http://u:canary@proxy:3128/path", "http://u:canary@proxy:3128#canary",
    "http://u:can/ary@proxy:3128", "http://u:canary@[::1:3128", "http://u:canary@x@proxy:3128",
    "http://u:can:ary@proxy:3128", "http://u:canary%@proxy:3128", "http://u:can ary@proxy:3128",
    "http://:canary@proxy:3128", "socks5://:canary@proxy:1080", "http://u:canary@:3128",
    "http://u:canary@proxy:3128\n", "http://u:canary\r\n@proxy:3128", "http://ü:canary@proxy:3128",
]  # fmt: skip
CREDENTIALS_NOT_SENT = [
    ("http://canary%3Auser:p@proxy:3128", "no colon"),
    ("socks5://canary@proxy:1080", "both user and password, or neither"),
    ("socks5://canary:@proxy:1080", "both user and password, or neither"),
    ("socks5://canary:%C3%BC@proxy:1080", "are ASCII"),
    ("socks5h://u:canary" + "x" * 250 + "@proxy:1080", "up to 255 octets"),
]


@pytest.mark.parametrize(
    ("url", "words"),
    [*((url, r"socks5h://… \(at the proxy\)") for url in NOT_A_PROXY), *CREDENTIALS_NOT_SENT],
)
def test_a_proxy_that_cannot_be_used_is_refused_unquoted(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"name": "a", "base_url": "http://a", "api_key": "k", "egress": url}
    with pytest.raises(ConfigError, match=words) as caught:
        config.parse({"upstream": [table]})
    assert caught.value.path == "upstream[0].egress"
    assert "canary" not in str(caught.value)

    monkeypatch.setenv("SOME_PROXY", url)
    upstream = config.parse({"upstream": [table | {"egress": "env:SOME_PROXY"}]}).upstream[0]
    with pytest.raises(ValueError) as refused:
        upstream.proxy()
    assert "canary" not in str(refused.value)


def test_a_proxy_comes_from_a_variable_or_a_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proxy(egress: str | None) -> ProxyUrl | None:
        one = config.UpstreamSettings(name="a", base_url="http://a", api_key="k", egress=egress)
        assert "canary" not in repr(one)
        return one.proxy()

    assert proxy(None) is None
    monkeypatch.setenv("SOME_PROXY", "http://u:canary@proxy:3128")
    assert proxy("env:SOME_PROXY") == ProxyUrl("http", "proxy", 3128, "u", "canary")
    (tmp_path / "proxy.url").write_text("socks5://proxy:1080\n")
    assert proxy(f"file:{tmp_path / 'proxy.url'}") == ProxyUrl("socks5", "proxy", 1080)
    with pytest.raises(ValueError, match="NO_SUCH_PROXY is not set"):
        proxy("env:NO_SUCH_PROXY")
    with pytest.raises(ValueError, match=r"cannot read .*none\.url"):
        proxy(f"file:{tmp_path / 'none.url'}")
    monkeypatch.setenv("SOME_PROXY", "canary:3128")
    with pytest.raises(ValueError, match="what env:SOME_PROXY holds must be http://"):
        proxy("env:SOME_PROXY")


@given(st.text(min_size=1).filter(lambda text: ":" not in text), st.text())
def test_every_credential_survives_its_percent_encoding(user: str, password: str) -> None:
    url = f"http://{quote(user, safe='')}:{quote(password, safe='')}@proxy:3128"
    proxy = ProxyUrl.parse(url, "egress")
    assert (proxy.user, proxy.password) == (user, password)


def test_a_proxy_never_shows_its_credentials() -> None:
    proxy = ProxyUrl.parse("socks5h://canary:canary@proxy:1080", "egress")
    assert "canary" not in f"{proxy} {proxy!r} {[proxy]}"
    assert repr(proxy) == "<Proxy socks5h://proxy:1080>"
    assert str(ProxyUrl.parse("http://[::1]:80", "egress")) == "[::1]:80"
