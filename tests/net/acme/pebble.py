"""Let's Encrypt's test authority Pebble, with a DNS of its own where every name is 127.0.0.1."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme

from tests.fakes.ports import free_port

needs_pebble = pytest.mark.skipif(
    shutil.which("pebble") is None or shutil.which("pebble-challtestsrv") is None,
    reason="needs Debian's package pebble",
)

# Pebble sleeps up to 15 s before it looks, and refuses nonces at random, in percent.
_QUICK = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_VA_SLEEPTIME": "0", "PEBBLE_WFE_NONCEREJECT": "10"}


@dataclass(frozen=True)
class Pebble:
    """A running authority."""

    directory: str
    ca: str  # that its own server is trusted by
    http_port: int  # where it looks for HTTP-01
    tls_port: int  # where it looks for TLS-ALPN-01

    def settings(self, **more: object) -> dict[str, object]:
        """[acme]."""
        return {"directory": self.directory, "ca": self.ca, **more}


@contextlib.contextmanager
def running_pebble(folder: Path, **more: object) -> Iterator[Pebble]:
    """`more` are further settings of its own."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(str(folder / "pebble-ca.pem"))
    issued.cert_chain_pems[0].write_to_path(str(folder / "pebble.pem"))
    issued.private_key_pem.write_to_path(str(folder / "pebble.key"))
    port, management, http, tls, dns = (free_port() for _ in range(5))
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "pebble.pem"),
        "privateKey": str(folder / "pebble.key"),
        "httpPort": http,
        "tlsPort": tls,
        **more,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    names = [
        "pebble-challtestsrv", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "",
        "-https01", "", "-tlsalpn01", "", "-dns01", f"127.0.0.1:{dns}",
        "-management", f"127.0.0.1:{free_port()}",
    ]  # fmt: skip
    command = ["pebble", "-config", str(folder / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"]
    variables = {**os.environ, **_QUICK}
    with open(folder / "pebble.log", "wb") as log:
        processes = [
            subprocess.Popen(arguments, env=variables, stdout=log, stderr=log)
            for arguments in (names, command)
        ]
        try:
            wait_for(port)
            yield Pebble(f"https://localhost:{port}/dir", str(folder / "pebble-ca.pem"), http, tls)
        finally:
            for process in processes:
                process.send_signal(signal.SIGTERM)
            for process in processes:
                process.wait(5)


def wait_for(port: int) -> None:
    """Wait until a program listens on the port."""
    until = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < until, "the program does not listen"
            time.sleep(0.02)
        else:
            return
