"""Settings of TLS, of automatic certificates and of proxies in front."""

from pathlib import Path

import pytest

from relay import config
from relay.config.tls_schema import LETS_ENCRYPT_STAGING
from tests.config.sections import load

AUTO = "[server]\ntls = 'auto'\n"

WRONG = [
    ("[server]\ntls = 'on'", "server.tls", 'a table { … } or a list [ … ] or "auto"'),
    ("[server]\ntls = true", "server.tls", 'a table { … } or a list [ … ] or "auto"'),
    ("[server]\ntls = []", "server.tls", "leave it out"),
    ("[server]\ntls = [1]", "server.tls[0]", "a table { … }"),
    ("[server]\ntls = [{ cert = 'c', key = 'k' }, { cert = 'd' }]", "server.tls[1].key", "missing"),
    ("[server]\ntls = [{ cert = 'c', kei = 'k' }]", "server.tls[0].kei", "cert, key"),
    (AUTO, "server.domains", 'such as ["relay.example"]'),
    (AUTO + "domains = ['*.a.example']", "server.domains", "dns-01"),
    (AUTO + "domains = ['192.0.2.1']", "server.domains", "is an IP address"),
    (AUTO + "domains = ['[2001:db8::1]']", "server.domains", "is an IP address"),
    (AUTO + "domains = ['https://a.example']", "server.domains", "not a host name"),
    (AUTO + "domains = ['a.example:443']", "server.domains", "not a host name"),
    (AUTO + "domains = ['A.example']", "server.domains", "lower case"),
    (AUTO + "domains = ['ä.example']", "server.domains", "xn--"),
    (AUTO + "domains = ['a..example']", "server.domains", "not a host name"),
    (AUTO + f"domains = ['{'a.' * 130}example']", "server.domains", "not a host name"),
    (AUTO + "domains = ['a.example', 'a.example']", "server.domains", "twice"),
    (AUTO + f"domains = {[f'a{n}.example' for n in range(101)]}", "server.domains", "100 at most"),
    (AUTO + "domains = ['localhost']", "server.domains", "no public name"),
    (AUTO + "domains = ['a.example']\nredirect_listen = ['unix:/a']", "server.redirect_listen",
     "host:port"),
    (AUTO + "domains = ['a.example']\nlisten = ['[::]:80']\nredirect_listen = ['[::]:80']",
     "server.redirect_listen", "listened on already"),
    ("[server]\nredirect_listen = ['[::]:80']", "server.redirect_listen", "needs tls"),
    ("[server]\ntrusted_proxies = ['10.0.0.1/8']", "server.trusted_proxies[0]", "10.0.0.0/8"),
    ("[server]\ntrusted_proxies = ['nginx']", "server.trusted_proxies[0]", "no network"),
    ("[server]\nproxy_protocol = true", "server.proxy_protocol", "needs trusted_proxies"),
    ("[acme]\ndirectory = 'http://a'", "acme.directory", "https://"),
    ("[acme]\ndirectory = 'https://a'\nstaging = true", "acme.staging", "another directory"),
    ("[acme]\nemail = 'ops'", "acme.email", "ops@example.com"),
    ("[acme]\neab_key_id = 'a'", "acme.eab_key", "is missing; the authority shows both"),
    ("[acme]\neab_key = 'a'", "acme.eab_key_id", "is missing"),
    ("[acme]\neab_key_id = 'ä'\neab_key = 'a'", "acme.eab_key_id", "as the authority shows it"),
    ("[acme]\nchallenge = 'dns-01'", "acme.challenge", '"http-01" or "tls-alpn-01"'),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "words"), WRONG, ids=[row[1] for row in WRONG])
def test_a_wrong_setting_of_tls_is_named(tmp_path: Path, text: str, path: str, words: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.path == path
    assert words in caught.value.reason
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        AUTO + "domains = ['a.example', 'xn--4ca.example', 'a-b.c3.example']",
        AUTO + "domains = ['relay']\n[acme]\ndirectory = 'https://authority.lan/acme'",
        "[server]\ntrusted_proxies = ['10.0.0.0/8', '192.0.2.7', '2001:db8::/32', 'unix']",
        "[server]\ntrusted_proxies = ['::1']\nproxy_protocol = true",
        "[acme]\nstaging = true\nemail = 'ops@example.com'\nchallenge = 'tls-alpn-01'",
    ],
)
def test_settings_of_tls_are_accepted(tmp_path: Path, text: str) -> None:
    load(tmp_path, text)


def test_files_of_tls_are_relative_to_the_settings_file(tmp_path: Path) -> None:
    text = "[server]\ntls = [{ cert = 'a.pem', key = '/a.key' }]\n[acme]\nca = 'ca.pem'\n"
    settings = load(tmp_path, text)
    (pair,) = config.certificate_files(settings.server.tls)
    assert pair == config.TlsSettings(cert=str(tmp_path / "a.pem"), key="/a.key")
    assert settings.acme.ca == str(tmp_path / "ca.pem")
    assert config.AcmeSettings(staging=True).directory_url == LETS_ENCRYPT_STAGING
