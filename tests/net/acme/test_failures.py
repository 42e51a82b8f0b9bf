"""Orders that fail: every error in words that say what to do, and nothing kept of it."""

import datetime
from pathlib import Path

import pytest

from relay.net.acme import network
from relay.net.acme import order as orders
from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.order import Order, OrderError, fetch
from relay.net.off_loop import off_loop
from relay.net.tls import read_certificate
from tests.fakes.ports import free_port
from tests.net.acme.authority import Authority, running_authority

DOMAIN = "relay.example"

pytestmark = pytest.mark.usefixtures("impatient")


def placed(tmp_path: Path, url: str, challenge: str = "http-01") -> Order:
    ca = str(tmp_path / "authority.pem")
    return Order(DOMAIN, url, "ops@example.com", ca, challenge)


async def ordered(
    tmp_path: Path, authority: Authority, challenge: str = "http-01"
) -> tuple[AcmeFolder, bytes]:
    """The folder, and what was fetched, after an order on a thread."""
    url = f"{authority.url}/directory"
    folder = AcmeFolder(str(tmp_path / "relay.db"), url)
    answers = Challenges()
    order = placed(tmp_path, url, challenge)
    try:
        return folder, await off_loop("order", lambda: fetch(order, folder, answers))
    finally:
        assert not answers.is_pending
        assert answers.key_authorization("dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHR0dHQ") is None


@pytest.mark.parametrize(
    "fault", ["", "bad nonce", "five bad nonces", "known account", "forgotten account"]
)
@pytest.mark.parametrize("challenge", ["http-01", "tls-alpn-01"])
async def test_an_order_succeeds_in_spite_of(tmp_path: Path, fault: str, challenge: str) -> None:
    with running_authority(tmp_path, fault) as authority:
        if fault == "forgotten account":
            folder = AcmeFolder(str(tmp_path / "relay.db"), f"{authority.url}/directory")
            folder.write(folder.account_url, f"{authority.url}/account/0".encode())
        folder, content = await ordered(tmp_path, authority, challenge)
        folder.write(folder.certificate(DOMAIN), content)
        assert read_certificate(folder.certificate(DOMAIN)).names == (DOMAIN,)
        assert folder.read(folder.account_url) == f"{authority.url}/account/1".encode()
        assert folder.read(folder.certificate("other.example")) is None
        assert authority.nonces_asked_for == 1  # a refusal brings the next one


@pytest.mark.matrix(share=2)
@pytest.mark.parametrize(
    ("fault", "words", "retry_after"),
    [
        ("silent", "it did not answer in time", None),
        ("cut", "its answer was cut", None),
        ("no JSON", "its answer cannot be read: is acme.directory right?", None),
        ("another JSON", "its answer cannot be read: is acme.directory right?", None),
        ("no nonce", "its answer cannot be read", None),
        ("bad nonces", "it refused six nonces in a row", None),
        ("externalAccountRequired", "set acme.eab_key_id and acme.eab_key as", None),
        ("rateLimited", "too many certificates.*acme.staging .its own words.", 7200),
        ("a date", "too many certificates", 7200),
        ("no date", "too many certificates", None),
        ("503", "its answer cannot be read", 120),
        ("serverInternal", "an error of its own", 7200),
        ("rejectedIdentifier", "no certificates for relay.example: remove it", 7200),
        ("userActionRequired", "its terms have changed", 7200),
        ("compound", "a CAA record of relay.example", 7200),
        ("no challenge", "no challenge of the kind http-01: see acme.challenge", None),
        ("connection", "on port 80: open the port in every firewall", None),
        ("dns", "it found no address of relay.example", None),
        ("unauthorized", "another server answered for relay.example on port 80", None),
        ("incorrectResponse", "another server answered for relay.example", None),
        ("tls", "TLS on port 80 of relay.example failed", None),
        ("caa", "a CAA record of relay.example forbids this authority", None),
        ("stuck", "it did not check the proof in time", None),
        ("order invalid", r"a CAA record.* \(forbidden by \[31m CAA\)", None),
        ("order invalid without a word", "its answer cannot be read|failed", None),
        ("other name", "its certificate is for other.example", None),
        ("other key", "its certificate is for another key", None),
        ("expired", "has expired already; see this machine's clock", None),
        ("broken chain", "of its chain did not sign each other", None),
        ("no certificate", "it sent no certificate", None),
    ],
)
async def test_a_failed_order_says_what_to_do(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    words: str,
    retry_after: float | None,
) -> None:
    if fault == "silent":
        monkeypatch.setattr(network, "_ANSWER_TIMEOUT_SECONDS", 0.5)
    if fault == "stuck":
        monkeypatch.setattr(orders, "_ORDER_TIMEOUT", datetime.timedelta(seconds=0.5))
    with (
        running_authority(tmp_path, fault) as authority,
        pytest.raises(OrderError, match=words) as caught,
    ):
        await ordered(tmp_path, authority)
    assert caught.value.retry_after == pytest.approx(retry_after, abs=60)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


async def test_an_authority_that_cannot_be_trusted_or_reached(tmp_path: Path) -> None:
    with running_authority(tmp_path, "") as authority:
        order = Order(DOMAIN, f"{authority.url}/directory", "", None, "http-01")
        folder = AcmeFolder(str(tmp_path / "relay.db"), order.directory)
        answers = Challenges()
        with pytest.raises(OrderError, match=r"not trusted: for a private authority set acme\.ca"):
            await off_loop("order", lambda: fetch(order, folder, answers))
    order = placed(tmp_path, f"https://localhost:{free_port()}/directory")
    with pytest.raises(OrderError, match=r"it cannot be reached: see acme\.directory, DNS"):
        await off_loop("order", lambda: fetch(order, folder, answers))
