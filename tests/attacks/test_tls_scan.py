"""The TLS of `relay serve`, as testssl.sh sees it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import trustme

from tests.durability.process import serving
from tests.net.acme.pebble import free_port
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


@pytest.mark.long
@pytest.mark.skipif(shutil.which("testssl") is None, reason="needs Debian's package testssl.sh")
def test_a_scan_finds_nothing_of_low_severity_or_above(tmp_path: Path) -> None:
    """Protocols, ciphers, forward secrecy and known weaknesses; takes about 100 s."""
    port = free_port()
    write_pair(tmp_path, trustme.CA(), "localhost")
    (tmp_path / "relay.toml").write_text(SETTINGS.format(port=port))
    found = tmp_path / "found.json"
    command = ["testssl", "--quiet", "--severity", "LOW", "-p", "-s", "-f", "-U"]
    with serving(tmp_path):
        subprocess.run(
            [*command, "--jsonfile", str(found), f"localhost:{port}"],
            stdout=subprocess.DEVNULL,
            check=False,
            timeout=400,
        )
    assert json.loads(found.read_text()) == []
