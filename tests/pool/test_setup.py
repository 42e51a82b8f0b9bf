"""Files and variables that an upstream's settings name are read anew, and kept while the same."""

from pathlib import Path
from typing import Any

import pytest
import trustme

from relay import config
from relay.config import ConfigError
from relay.pool.setup import UpstreamSetup, read_setups


def settings_of(**row: Any) -> config.Settings:
    upstream = {"name": "one", "base_url": "https://one.example", "api_key": "k", **row}
    return config.parse(
        {"database": {"path": "relay.db"}, "upstream": [upstream], "plan": [{"id": "p"}]}
    )


def setup_of(before: UpstreamSetup | None = None, **row: Any) -> UpstreamSetup:
    known = None if before is None else {"one": before}
    [setup] = read_setups(settings_of(**row), known)
    return setup


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def test_equal_settings_keep_their_objects(authority: Path) -> None:
    row: dict[str, Any] = {"ca": str(authority), "limits": [{"requests": 5, "per": "1h"}]}
    first = setup_of(**row)
    again = setup_of(first, **row)
    assert again.tls is first.tls
    assert again.limits is first.limits
    assert again.new_secrets(first) == []
    assert again.is_same_place(first)
    assert not setup_of(base_url="https://two.example").is_same_place(first)
    assert repr(again) == "<UpstreamSetup one>"


def test_a_plain_address_has_no_certificates() -> None:
    setup = setup_of(base_url="http://one.example:8080")
    assert setup.tls is None
    assert (setup.origin.host, setup.origin.port) == ("one.example", 8080)
    assert setup_of().origin.port == 443


def test_rotated_files_are_named(tmp_path: Path, authority: Path) -> None:
    (tmp_path / "key").write_text("first")
    (tmp_path / "proxy").write_text("http://127.0.0.1:1")
    row: dict[str, Any] = {
        "api_key": f"file:{tmp_path / 'key'}",
        "egress": f"file:{tmp_path / 'proxy'}",
        "ca": str(authority),
    }
    first = setup_of(**row)
    (tmp_path / "key").write_text("second")
    (tmp_path / "proxy").write_text("http://127.0.0.1:2")
    trustme.CA().cert_pem.write_to_path(str(authority))
    second = setup_of(first, **row)
    assert second.new_secrets(first) == ["api_key", "egress", "ca"]
    assert second.tls is not first.tls


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ({"api_key": "file:/nowhere/key"}, "upstream[0]"),
        ({"egress": "file:/nowhere/proxy"}, "upstream[0].egress"),
        ({"ca": "/nowhere/ca.pem"}, "upstream[0]"),
    ],
)
def test_an_unreadable_file_is_refused_by_its_place(row: dict[str, Any], place: str) -> None:
    with pytest.raises(ConfigError) as refused:
        setup_of(**row)
    assert str(refused.value).startswith(place)
