"""The task that orders and renews: in the background, patient, and never without a certificate."""

import asyncio
import os
import time
from pathlib import Path

import msgspec
import pytest

from relay import config
from relay.net.acme import renewal
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.renewal import AutoCertificates
from relay.net.certificate_source import CertificateSource
from relay.net.tls import Certificates
from tests.fakes.until import until
from tests.net.acme.authority import Authority, running_authority

DOMAIN = "relay.example"

pytestmark = pytest.mark.usefixtures("impatient")


def settings_of(tmp_path: Path, authority: Authority) -> config.Settings:
    return config.parse(
        {
            "server": {"tls": "auto", "domains": [DOMAIN]},
            "database": {"path": str(tmp_path / "relay.db")},
            "acme": {
                "directory": f"{authority.url}/directory",
                "ca": str(tmp_path / "authority.pem"),
                "challenge": "http-01",
            },
        }
    )


async def test_an_order_that_hangs_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renewal, "_ORDER_TIMEOUT_SECONDS", 0.3)
    with running_authority(tmp_path, "silent") as authority:
        auto = AutoCertificates(Certificates(), settings_of(tmp_path, authority))
        task = asyncio.get_running_loop().create_task(auto.run())
        await until(lambda: auto.faults(), within=20)
        assert auto.faults() == {DOMAIN: "the authority did not finish in time"}
        task.cancel()
    (line,) = [one.getMessage() for one in caplog.records]
    assert "Next try at 20" in line


async def test_a_limit_of_the_authority_is_respected(tmp_path: Path) -> None:
    with running_authority(tmp_path, "rateLimited") as authority:
        auto = AutoCertificates(Certificates(), settings_of(tmp_path, authority))
        task = asyncio.get_running_loop().create_task(auto.run())
        await until(lambda: auto.faults(), within=20)
        assert 7000 < auto.next_order() - time.time() < 8000
        orders_placed = authority.requests.count("/new-order")
        await asyncio.sleep(0.3)
        assert authority.requests.count("/new-order") == orders_placed == 1
        task.cancel()


async def test_a_due_certificate_is_renewed_and_a_failure_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates()
    with running_authority(tmp_path, "") as authority:
        settings = settings_of(tmp_path, authority)
        auto = AutoCertificates(certificates, settings)
        task = asyncio.get_running_loop().create_task(auto.run())
        await until(
            lambda: certificates.dates()[0].not_after > time.time() + 80 * 86_400, within=20
        )
        task.cancel()
        end = certificates.dates()[0].not_after
        assert time.time() + 50 * 86_400 < auto.next_order() < time.time() + 60 * 86_400
        monkeypatch.setattr(renewal, "renewal_time", lambda *_: 0.0)  # due at once
        authority.fault = "caa"
        again = AutoCertificates(certificates, settings)
        task = asyncio.get_running_loop().create_task(again.run())
        await until(lambda: again.faults(), within=20)
        assert certificates.dates()[0].not_after == end
        task.cancel()


async def test_other_domains_are_ordered_after_a_reload(tmp_path: Path) -> None:
    certificates = Certificates()
    with running_authority(tmp_path, "") as authority:
        settings = settings_of(tmp_path, authority)
        auto = AutoCertificates(certificates, settings)
        task = asyncio.get_running_loop().create_task(auto.run())
        await until(lambda: auto.next_order() > time.time(), within=20)
        kept = certificates.dates()
        server = msgspec.structs.replace(settings.server, domains=["b.example", DOMAIN])
        await auto.reload(msgspec.structs.replace(settings, server=server))
        await until(lambda: auto.next_order() > time.time(), within=20)
        assert [one.name for one in certificates.dates()] == ["b.example", DOMAIN]
        assert certificates.dates()[1:] == kept
        assert certificates.dates()[0].not_after > time.time() + 80 * 86_400
        task.cancel()


async def test_a_reload_ends_the_wait_after_a_failure(tmp_path: Path) -> None:
    with running_authority(tmp_path, "caa") as authority:
        settings = settings_of(tmp_path, authority)
        source = CertificateSource(settings)
        task = asyncio.get_running_loop().create_task(source.run())
        await until(source.faults, within=20)
        authority.fault = ""
        await source.reload(settings)
        await until(lambda: not source.faults(), within=20)
        files = msgspec.structs.replace(settings.server, tls=None)
        with pytest.raises(config.ConfigError, match="needs a restart"):
            await source.reload(msgspec.structs.replace(settings, server=files))
        task.cancel()


async def test_a_broken_file_is_ordered_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with running_authority(tmp_path, "") as authority:
        settings = settings_of(tmp_path, authority)
        folder = AcmeFolder(settings.database.path, settings.acme.directory)
        folder.write(folder.certificate(DOMAIN), b"half a file")
        AutoCertificates(Certificates(), settings)
        assert "is ordered again: there is no certificate in" in caplog.text
        assert os.listdir(folder.path) == [f"{DOMAIN}.pem"]  # nothing of the temporary one


async def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "relay.db.acme").write_bytes(b"")
    with (
        running_authority(tmp_path, "") as authority,
        pytest.raises(OSError, match=r"relay\.db\.acme"),
    ):
        AutoCertificates(Certificates(), settings_of(tmp_path, authority))
