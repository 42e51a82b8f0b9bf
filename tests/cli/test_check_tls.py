"""`relay check` on certificates: faults by name, and what is valid but probably not meant."""

from pathlib import Path

import pytest
import trustme

from tests.cli.command import SETTINGS, done, refused, run
from tests.net.pems import write_pair

pytestmark = pytest.mark.usefixtures("folder")


def write(folder: Path, server: str, more: str = "") -> None:
    """relay.toml with further lines in [server], and after its end."""
    public = 'public_url = "https://relay.example"'
    assert public in SETTINGS
    text = SETTINGS.replace(public, f"{public}\n{server}") + more
    (folder / "relay.toml").write_text(text)


FILES = 'tls = { cert = "relay.pem", key = "relay.key" }'


@pytest.mark.parametrize(
    ("server", "words"),
    [
        (FILES.replace("relay.key", "other.key"), "server.tls: "),
        (FILES.replace("relay.pem", "relay.key"), "there is no certificate in"),
        (FILES.replace("relay.key", "relay.toml"), "there is no private key in"),
        (FILES.replace("relay", "old"), "old.pem expired on 20"),
        (FILES + '\ndomains = ["b.example"]', "server.domains: no certificate in server.tls is"),
        (f"tls = [{FILES[6:]}, {FILES[6:].replace('relay.key', 'none')}]",
         "server.tls[1].key: cannot read"),
        ('tls = "auto"', "server.domains: is empty"),
        ('tls = "auto"\ndomains = ["*.a.example"]', "dns-01"),
        ('tls = "auto"\ndomains = ["10.0.0.1"]', "is an IP address"),
    ],
)  # fmt: skip
def test_a_fault_of_certificates_is_named(folder: Path, server: str, words: str) -> None:
    authority = trustme.CA()
    write_pair(folder, authority, "relay.example")
    write_pair(folder, authority, "relay.example", stem="other")
    write_pair(folder, authority, "relay.example", stem="old", days=-1)
    write(folder, server)
    line = refused(2, "check")
    assert line.startswith("relay.toml: server.")
    assert words in line


def test_good_certificates_are_no_fault(folder: Path) -> None:
    write_pair(folder, trustme.CA(), "relay.example")
    write(folder, FILES + '\ndomains = ["relay.example"]')
    out = done("check")
    assert 'server.tls.cert = "' in out
    assert run("check").stderr.count("server.") == 0


def test_an_authority_that_cannot_be_read_is_a_fault(folder: Path) -> None:
    acme = '\n[acme]\nca = "ca.pem"\n'
    write(folder, 'tls = "auto"\ndomains = ["relay.example"]\nlisten = ["[::]:443"]', acme)
    assert "acme.ca: cannot read" in refused(2, "check")
    (folder / "ca.pem").write_text("no certificate")
    assert "acme.ca: there are no certificates in" in refused(2, "check")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("env:NO_SUCH_NAME", "the environment variable NO_SUCH_NAME is not set"),
        ("file:none", "cannot read"),
        ("a/b+c", "it is not base64url"),
        ("abcde", "it is cut"),
    ],
)
def test_a_binding_key_that_cannot_be_used_is_named(folder: Path, key: str, words: str) -> None:
    acme = f'\n[acme]\neab_key_id = "a"\neab_key = "{key}"\n'
    write(folder, 'tls = "auto"\ndomains = ["relay.example"]\nlisten = ["[::]:443"]', acme)
    line = refused(2, "check")
    assert f"acme.eab_key: {words}" in line
    assert key not in line or ":" in key


@pytest.mark.parametrize(
    ("server", "more", "words"),
    [
        ('tls = "auto"\ndomains = ["relay.example"]', "", "server.listen has no port 443"),
        ('tls = "auto"\ndomains = ["b.example"]\nlisten = ["[::]:443"]', "",
         "server.public_url: relay.example is not in server.domains: b.example is"),
        ('tls = "auto"\ndomains = ["relay.example"]\nlisten = ["[::]:443"]\nredirect_listen = []',
         '\n[acme]\nchallenge = "http-01"\n', "http-01 is answered on server.redirect_listen"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_warned_of(
    folder: Path, server: str, more: str, words: str
) -> None:
    write(folder, server, more)
    result = run("check")
    assert result.exit_code == 0
    assert words in result.stderr
