"""Authorities that want an account of their own: external account binding (RFC 8555 §7.3.4)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.order import Binding, Order, OrderError, fetch
from relay.net.off_loop import off_loop
from relay.secret import Secret
from tests.fakes.live import RelayWith
from tests.fakes.until import until
from tests.net.acme.authority import Authority, running_authority
from tests.net.acme.issued import is_issued, server_of, source_of
from tests.net.acme.pebble import Pebble, needs_pebble, running_pebble

KEY_ID = "kid-1"
KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
OTHER = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH"

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture(scope="module")
def binding_pebble(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pebble]:
    """Pebble, which opens accounts for those who know the key alone."""
    settings = {
        "externalAccountBindingRequired": True,
        "externalAccountMACKeys": {KEY_ID: KEY},
    }
    with running_pebble(tmp_path_factory.mktemp("pebble"), **settings) as running:
        yield running


@needs_pebble
async def test_a_key_of_the_authority_opens_an_account(
    relay_with: RelayWith, binding_pebble: Pebble, tmp_path: Path
) -> None:
    file = tmp_path / "eab"
    file.write_text(KEY + "\n")
    relay = await relay_with(
        server=server_of(binding_pebble, "bound.example"),
        acme=binding_pebble.settings(eab_key_id=KEY_ID, eab_key=f"file:{file}"),
    )
    await until(lambda: is_issued(relay, "bound.example"), within=20)


@needs_pebble
@pytest.mark.parametrize(
    ("acme", "words"),
    [
        ({}, "set acme.eab_key_id and acme.eab_key as it shows them"),
        ({"eab_key_id": KEY_ID, "eab_key": OTHER}, "it does not accept acme.eab_key_id with"),
        ({"eab_key_id": "kid-2", "eab_key": KEY}, "it does not accept acme.eab_key_id with"),
        ({"eab_key_id": KEY_ID, "eab_key": "file:/none"}, "acme.eab_key: cannot read /none"),
    ],
    ids=["none", "another key", "another id", "no file"],
)
async def test_a_binding_that_is_refused_is_explained(
    relay_with: RelayWith, binding_pebble: Pebble, acme: dict[str, str], words: str
) -> None:
    relay = await relay_with(
        server=server_of(binding_pebble, "a.example"), acme=binding_pebble.settings(**acme)
    )
    await until(source_of(relay).faults, within=20)
    (fault,) = source_of(relay).faults().values()
    assert words in fault
    assert KEY not in fault
    assert OTHER not in fault


async def ordered(tmp_path: Path, authority: Authority) -> None:
    """Order with an account that is to be bound."""
    url, ca = f"{authority.url}/directory", str(tmp_path / "authority.pem")
    order = Order("relay.example", url, "", ca, "http-01", Binding(KEY_ID, Secret(KEY)))
    folder, answers = AcmeFolder(str(tmp_path / "relay.db"), url), Challenges()
    await off_loop("order", lambda: fetch(order, folder, answers))


async def test_an_account_that_is_there_is_bound_no_more(tmp_path: Path) -> None:
    """The key may expire once it was used, as Google's do."""
    with running_authority(tmp_path, "") as authority:
        for _ in range(2):
            authority.restart()
            await ordered(tmp_path, authority)
    assert [one is not None for one in authority.bindings] == [True]


async def test_a_binding_hides_no_other_error(tmp_path: Path) -> None:
    with (
        running_authority(tmp_path, "rateLimited account") as authority,
        pytest.raises(OrderError, match="too many certificates"),
    ):
        await ordered(tmp_path, authority)
