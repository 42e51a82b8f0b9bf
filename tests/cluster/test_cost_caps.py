"""A cap on an upstream's cost holds over the relays that share a ledger, in processes of their
own."""

from pathlib import Path
from typing import Any

from relay import config
from relay.cli.admin_client import call
from tests.cluster.postgres import Postgres
from tests.cluster.relays import Fleet, ask_all, ask_once
from tests.durability.metered import opened
from tests.durability.process import serving
from tests.fakes.until import until

# Costs are read every 5 s in a relay as it is.
OFTEN = (
    "-c",
    "from relay import upkeep; upkeep._COSTS_INTERVAL_SECONDS = 0.1;"
    "from relay.cli import main; main()",
)
EACH = 10  # requests at each relay
COST = 309  # micro-dollars of a request: 3 tokens in, 20 out
CAP = 15 * COST


def ended(folder: Path) -> int:
    """The requests of all relays that have a cost, as far as a relay has their rows."""
    with opened(folder) as connection:
        [row] = connection.execute("SELECT count(*) FROM usage WHERE cost_micro > 0")
        return int(row[0])


def cost(folder: Path) -> dict[str, Any]:
    """The costs of the upstream and its caps, as a running relay knows them."""
    [upstream] = call(config.load(folder / "relay.toml"))["upstreams"]
    return dict(upstream["cost"])


async def test_a_cost_cap_holds_over_two_relays(
    fleet: Fleet, postgres: Postgres, database: str
) -> None:
    """Neither has spent it alone, and nobody spends more once both have heard of it."""
    [key] = fleet.new_keys("mixed", credit="5")
    folders = fleet.spread(postgres.url(database), 2)
    for folder in folders:
        settings = folder / "relay.toml"
        text = settings.read_text().replace(
            'admin_listen = ""', f'admin_listen = "unix:{folder}/s"'
        )
        capped = f"cost_cap = {{ month = {CAP / 1_000_000} }}\napi_key ="
        settings.write_text(text.replace("api_key =", capped, 1))
    with serving(folders[0], program=OFTEN) as a, serving(folders[1], program=OFTEN) as b:
        assert await ask_all([a, b], [key], connections=1, each=EACH) == {200: 2 * EACH}
        await until(lambda: {ended(folder) for folder in folders} == {2 * EACH}, within=20)
        for one in (a, b):
            spent = 2 * EACH * COST
            await until(lambda: cost(one.folder)["month_micro"] == spent, within=20)  # noqa: B023
            assert cost(one.folder)["month_cap_micro"] == CAP
            status, _, body = await ask_once(one, key)
            assert status == 503, body
        assert {ended(folder) for folder in folders} == {2 * EACH}
