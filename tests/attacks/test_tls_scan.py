"""The TLS of `relay serve`, as sslscan and testssl.sh see it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import trustme

from tests.durability.process import serving
from tests.fakes.ports import free_port
from tests.net.pems import write_pair

SETTINGS = """
[server]
listen = ["127.0.0.1:{port}"]
tls = {{ cert = "relay.pem", key = "relay.key" }}

[[upstream]]
name = "a"
base_url = "http://127.0.0.1:9"
api_key = "k"
"""


GOOD = {"OK", "INFO"}


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Of a relay with a certificate for localhost."""
    number = free_port()
    write_pair(tmp_path, trustme.CA(), "localhost")
    (tmp_path / "relay.toml").write_text(SETTINGS.format(port=number))
    with serving(tmp_path):
        yield number


@pytest.mark.skipif(shutil.which("sslscan") is None, reason="needs Debian's package sslscan")
def test_sslscan_sees_current_protocols_and_ciphers_alone(port: int) -> None:
    """TLS 1.2 and 1.3, forward secrecy, authenticated encryption, no renegotiation."""
    done = subprocess.run(
        ["sslscan", "--xml=-", "--no-check-certificate", f"localhost:{port}"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    (scan,) = ElementTree.fromstring(done.stdout)
    offered = {
        f"{one.get('type')} {one.get('version')}"
        for one in scan.iter("protocol")
        if one.get("enabled") == "1"
    }
    assert offered == {"tls 1.2", "tls 1.3"}
    assert [one.get("supported") for one in scan.iter("renegotiation")] == ["0"]
    assert {one.get("supported") for one in scan.iter("compression")} <= {"0"}
    assert {one.get("vulnerable") for one in scan.iter("heartbleed")} == {"0"}
    ciphers = {str(one.get("cipher")) for one in scan.iter("cipher")}
    assert len(ciphers) >= 6
    for cipher in ciphers:
        assert cipher.startswith(("TLS_", "ECDHE-"))
        assert "GCM" in cipher or "POLY1305" in cipher


@pytest.mark.long
@pytest.mark.skipif(shutil.which("testssl") is None, reason="needs Debian's package testssl.sh")
def test_a_scan_finds_nothing_of_low_severity_or_above(tmp_path: Path, port: int) -> None:
    """Protocols, ciphers, forward secrecy and known weaknesses; takes about 100 s."""
    path = tmp_path / "found.json"
    command = ["testssl", "--quiet", "-p", "-s", "-f", "-U", "--jsonfile", str(path)]
    subprocess.run(
        [*command, f"localhost:{port}"],
        stdout=subprocess.DEVNULL,
        check=False,
        timeout=400,
    )
    found = {one["id"]: one for one in json.loads(path.read_text())}
    assert [one for one in found.values() if one["severity"] not in GOOD] == []
    for name in ("SSLv3", "TLS1", "TLS1_1"):
        assert found[name]["finding"] == "not offered"
    for name in ("CRIME_TLS", "secure_renego", "secure_client_renego"):
        assert found[name]["severity"] == "OK"
