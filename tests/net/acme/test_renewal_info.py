"""Renewal when the authority suggests it (RFC 9773)."""

import asyncio
import datetime
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from relay.net.acme.renewal import AutoCertificates
from relay.net.acme.renewal_info import certificate_id
from relay.net.acme.schedule import suggested_time
from relay.net.tls import Certificates
from tests.fakes.until import until
from tests.net.acme.authority import Authority, running_authority
from tests.net.acme.test_renewal import DOMAIN, settings_of

DAY = 86_400.0

pytestmark = pytest.mark.usefixtures("impatient")


def window(start: float, end: float, **more: str) -> dict[str, Any]:
    """Renewal information; the times are days from now."""

    def text(days: float) -> str:
        found = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        return found.isoformat().replace("+00:00", "Z")

    return {"suggestedWindow": {"start": text(start), "end": text(end)}, **more}


@asynccontextmanager
async def running(tmp_path: Path, authority: Authority) -> AsyncIterator[AutoCertificates]:
    """As after a start."""
    auto = AutoCertificates(Certificates(), settings_of(tmp_path, authority))
    task = asyncio.get_running_loop().create_task(auto.run())
    yield auto
    task.cancel()


async def order(tmp_path: Path, authority: Authority) -> None:
    async with running(tmp_path, authority) as auto:
        await until(lambda: auto.next_order() > time.time(), within=20)
    authority.restart()


async def test_a_certificate_is_renewed_within_the_suggested_window(tmp_path: Path) -> None:
    with running_authority(tmp_path, "") as authority:
        await order(tmp_path, authority)
        authority.renewal_info = window(3, 5)
        async with running(tmp_path, authority) as auto:
            await until(lambda: auto.next_order() < time.time() + 5 * DAY)
            assert auto.next_order() > time.time() + 2.9 * DAY
        certificate = x509.load_pem_x509_certificate(authority.chain)
        assert authority.asked_about == [certificate_id(certificate)]
        assert authority.requests == []


async def test_a_window_in_the_past_renews_once_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a certificate that will be revoked."""
    with running_authority(tmp_path, "") as authority:
        await order(tmp_path, authority)
        authority.renewal_info = window(-2, -1, explanationURL="https://ca.example/why")
        async with running(tmp_path, authority) as auto:
            await until(lambda: "/certificate" in authority.requests, within=20)
            await until(lambda: auto.next_order() > time.time())
            await asyncio.sleep(0.2)
            assert authority.requests.count("/new-order") == 1
    assert "as its authority asks (see https://ca.example/why)" in caplog.text


@pytest.mark.parametrize("fault", ["", "alreadyReplaced"])
async def test_a_renewal_says_which_certificate_it_replaces(tmp_path: Path, fault: str) -> None:
    """RFC 9773 §5. A refusal costs one more order, not the certificate."""
    with running_authority(tmp_path, fault) as authority:
        authority.renewal_info = window(20, 30)
        await order(tmp_path, authority)
        assert authority.replaced == [None]
        first = certificate_id(x509.load_pem_x509_certificate(authority.chain))
        authority.renewal_info = window(-2, -1)
        async with running(tmp_path, authority) as auto:
            await until(lambda: "/certificate" in authority.requests, within=20)
            await until(lambda: auto.next_order() > time.time())
        again = [first] if not fault else [first, None]
        assert authority.replaced == [None, *again]


async def test_an_authority_without_renewal_info_gets_no_name(
    tmp_path: Path,
) -> None:
    with running_authority(tmp_path, "") as authority:
        await order(tmp_path, authority)
        authority.renewal_info = window(-2, -1)
        async with running(tmp_path, authority) as auto:
            await until(lambda: auto.next_order() < time.time())
            authority.renewal_info = None
            await until(lambda: "/certificate" in authority.requests, within=20)
            await until(lambda: auto.next_order() > time.time())
        assert authority.replaced == [None, None]


async def test_the_directory_is_fetched_once_for_all_domains(tmp_path: Path) -> None:
    names = ["a.example", "b.example", "c.example"]
    with running_authority(tmp_path, "") as authority:
        settings = settings_of(tmp_path, authority)
        server = msgspec.structs.replace(settings.server, domains=names)
        many = msgspec.structs.replace(settings, server=server)
        auto = AutoCertificates(Certificates(), many)
        task = asyncio.get_running_loop().create_task(auto.run())
        await until(lambda: auto.next_order() > time.time(), within=20)
        task.cancel()
        authority.renewal_info = window(30, 40)
        authority.directories_asked_for = 0
        task = asyncio.get_running_loop().create_task(AutoCertificates(Certificates(), many).run())
        await until(lambda: len(authority.asked_about) == len(names))
        task.cancel()
        assert authority.directories_asked_for == 1


async def test_an_order_that_is_due_waits_for_no_question(tmp_path: Path) -> None:
    with running_authority(tmp_path, "") as authority:
        await order(tmp_path, authority)
        authority.renewal_info = window(3, 5)
        settings = settings_of(tmp_path, authority)
        server = msgspec.structs.replace(settings.server, domains=[DOMAIN, "new.example"])
        both = msgspec.structs.replace(settings, server=server)
        auto = AutoCertificates(Certificates(), both)
        task = asyncio.get_running_loop().create_task(auto.run())
        await until(lambda: authority.requests, within=20)
        assert authority.asked_about == []
        await until(lambda: authority.asked_about, within=20)
        assert authority.requests.count("/certificate") == 1
        task.cancel()


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"suggestedWindow": {"start": "soon", "end": "later"}},
        {"suggestedWindow": {"start": "2020-01-01T00:00:00", "end": "2020-01-02T00:00:00"}},
        window(-1, -2),
    ],
    ids=["empty", "no times", "no zone", "backwards"],
)
async def test_an_answer_in_another_form_changes_nothing(
    tmp_path: Path, answer: dict[str, Any]
) -> None:
    with running_authority(tmp_path, "") as authority:
        await order(tmp_path, authority)
        authority.renewal_info = answer
        async with running(tmp_path, authority) as auto:
            await until(lambda: authority.asked_about)
            await asyncio.sleep(0.2)
            assert time.time() + 50 * DAY < auto.next_order() < time.time() + 60 * DAY
            assert authority.requests == []
            assert auto.faults() == {}


def test_a_certificate_has_the_name_of_the_standard() -> None:
    """The example of RFC 9773 §4.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    issuer = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 0x87654321, now, now)
        .add_extension(x509.AuthorityKeyIdentifier(issuer, None, None), critical=False)
        .sign(key, hashes.SHA256())
    )
    assert certificate_id(certificate) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"


@given(st.floats(0, 100 * DAY), st.floats(1, 30 * DAY), st.floats(0, 1))
def test_renewal_is_in_the_window_and_before_the_end(
    start: float, length: float, jitter: float
) -> None:
    due = suggested_time((start, start + length), 0, 90 * DAY, jitter)
    assert min(start, 0.95 * 90 * DAY) <= due <= min(start + length, 0.95 * 90 * DAY) + 1e-3
