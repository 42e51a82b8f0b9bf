"""The files that a relay.toml names, found and renamed without a change to the rest."""

import tomllib

import pytest

from relay.transfer import TransferError, references

TEXT = """# don't touch "file:keys/a" in comments? it is harmless
[server]
tls = { cert = "/etc/relay/cert.pem", key = '/etc/relay/key.pem' }  # it's here
[database]
path = "data/relay.db"
[[upstream]]
name = "cert.pem"
base_url = "https://a.example"
api_key = "file:keys/a"   # secret
ca = "ca.pem"
headers = { "x-b" = "env:NOT_RESOLVED" }
[[upstream]]
name = "b"
base_url = "https://b.example"
api_key = "env:B_KEY"
egress = "file:/run/proxy"
"""


def test_every_file_is_found() -> None:
    tree = tomllib.loads(TEXT)
    assert references.files(tree) == {
        "server.tls.cert": "/etc/relay/cert.pem",
        "server.tls.key": "/etc/relay/key.pem",
        "upstream[0].api_key": "keys/a",
        "upstream[0].ca": "ca.pem",
        "upstream[1].egress": "/run/proxy",
    }
    assert references.environment(tree) == ["B_KEY", "NOT_RESOLVED"]


def test_certificates_may_be_a_list() -> None:
    tree = tomllib.loads('[server]\ntls = [{ cert = "a", key = "b" }]\n[acme]\nca = "c"')
    assert list(references.files(tree).values()) == ["a", "b", "c"]


def test_only_names_of_files_change() -> None:
    names = {
        "/etc/relay/cert.pem": "secrets/cert.pem",
        "/etc/relay/key.pem": "secrets/key.pem",
        "keys/a": "secrets/a",
        "ca.pem": "secrets/ca.pem",
        "data/relay.db": "relay.db",
    }
    text = references.renamed(TEXT, names)
    lines = zip(TEXT.splitlines(), text.splitlines(), strict=True)
    changed = [new for old, new in lines if old != new and not old.startswith("#")]
    assert changed == [
        'tls = { cert = "secrets/cert.pem", key = "secrets/key.pem" }  # it\'s here',
        'path = "relay.db"',
        'api_key = "file:secrets/a"   # secret',
        'ca = "secrets/ca.pem"',
    ]


def test_a_name_that_is_also_another_setting_is_refused() -> None:
    text = '[[upstream]]\nname = "ca.pem"\nca = "ca.pem"'
    with pytest.raises(TransferError, match="write each in plain quotes"):
        references.renamed(text, {"ca.pem": "secrets/ca.pem"})
