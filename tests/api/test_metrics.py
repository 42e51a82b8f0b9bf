"""`GET /metrics` on the admin listener: its figures are those of the access log."""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from relay.telemetry.histogram import SHARE_BOUNDS, Histogram
from tests.api.admin_listener import admin, admin_relay
from tests.api.scrape import scraped, total
from tests.fakes.caller import BODY, exchange
from tests.fakes.live import Live, RelayWith

PRICED: list[dict[str, Any]] = [
    {"id": "claude-sonnet-4-7", "aliases": ["house"], "price": {"input": 3.0, "output": 15.0}}
]


async def ask(relay: Live, **changes: Any) -> int:
    async with httpx.AsyncClient() as client:
        url = f"{relay.url}/v1/messages"
        answer = await client.post(url, headers=relay.headers, json={**BODY, **changes})
    return answer.status_code


async def test_the_figures_agree_with_the_access_log(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with(model=PRICED)
    for _ in range(3):
        assert await ask(relay) == 200
    assert await ask(relay, model="house", stream=True) == 200
    assert await ask(relay, model="unknown") == 404
    assert await ask(relay, max_tokens="many") == 400
    samples, lines = await scraped(relay), relay.log()
    assert total(samples, "relay_requests_total") == len(lines)
    for code, count in Counter(str(line["status"])[0] + "xx" for line in lines).items():
        assert total(samples, "relay_requests_total", code=code) == count
    for kind in ("input", "output"):
        counted = sum(line.get(kind, 0) for line in lines)
        assert counted > 0
        assert total(samples, "relay_tokens_total", type=kind) == counted
    dollars = sum(line.get("input", 0) * 3 + line.get("output", 0) * 15 for line in lines) / 1e6
    assert math.isclose(total(samples, "relay_cost_dollars_total"), dollars, abs_tol=1e-5)
    assert total(samples, "relay_request_duration_seconds_count") == len(lines)
    spent = sum(line["us"] for line in lines) / 1e6
    assert math.isclose(total(samples, "relay_request_duration_seconds_sum"), spent)
    streamed = [line["first_us"] for line in lines if "first_us" in line]
    assert len(streamed) == total(samples, "relay_first_event_seconds_count") == 1
    assert math.isclose(total(samples, "relay_first_event_seconds_sum"), streamed[0] / 1e6)


async def test_labels_are_names_of_the_settings_alone(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with(model=PRICED, pool={"wait": 5, "sticky": "off"})
    for name in ("house", "claude-sonnet-4-7", *(f"invented-{number}" for number in range(5))):
        await ask(relay, model=name)
    async with httpx.AsyncClient() as client:
        for number in range(5):
            await client.get(f"{relay.url}/invented/{number}")
    samples = await scraped(relay)
    found = {
        tuple(dict(own)[label] for label in ("endpoint", "model", "upstream"))
        for name, own in samples
        if name == "relay_requests_total"
    }
    assert found == {
        ("/v1/messages", "claude-sonnet-4-7", "one"),
        ("/v1/messages", "claude-sonnet-4-7", "two"),
        ("/v1/messages", "", ""),
        ("other", "", ""),
    }
    assert "ada@example.com" not in str(samples)
    assert "invented" not in str(samples)


async def test_the_state_of_every_part_is_shown(admin_relay_with: RelayWith) -> None:
    relay = await admin_relay_with()
    assert await ask(relay) == 200
    await exchange(relay.port, b"nonsense\r\n\r\n")
    await admin(relay, "POST", "/upstreams/two/pause")
    samples = await scraped(relay)
    assert total(samples, "relay_upstream_state", upstream="two", state="paused") == 1
    assert total(samples, "relay_upstream_state", state="ok") == 1
    assert total(samples, "relay_upstream_answers_total") == 1
    assert total(samples, "relay_rejected_heads_total", code="400") == 1
    assert total(samples, "relay_journal_healthy") == 1
    assert total(samples, "relay_journal_batches_total") >= 1
    assert total(samples, "relay_accepting") == 1
    assert total(samples, "relay_database_bytes", file="database") > 0
    assert total(samples, "process_resident_memory_bytes") > 10 * 2**20
    assert total(samples, "process_open_fds") > 5
    assert total(samples, "relay_build_info") == 1


async def test_refusals_are_counted_by_reason(admin_relay_with: RelayWith) -> None:
    plan = [{"id": "free", "limits": [{"requests": 1, "per": "5h"}], "max_keys": 10}]
    relay = await admin_relay_with(plan=plan)
    assert [await ask(relay), await ask(relay)] == [200, 429]
    relay.key = "sk-wrong"
    assert await ask(relay) == 401
    samples = await scraped(relay)
    assert total(samples, "relay_refusals_total", reason="quota") == 1
    assert total(samples, "relay_refusals_total", reason="authentication_error") == 1


@pytest.mark.parametrize("path", ["/metrics", "/upstreams", "/trickle"])
async def test_the_public_listener_shows_none_of_it(live: Live, path: str) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(live.url + path, headers=live.headers)
    assert answer.status_code == 404


async def test_the_public_status_names_no_upstream(live: Live) -> None:
    async with httpx.AsyncClient() as client:
        answers = [await client.get(live.url + path) for path in ("/status", "/status.json")]
    assert [answer.status_code for answer in answers] == [200, 200]
    for answer in answers:
        assert f">{live.settings.upstream[0].name}<" not in answer.text
        assert live.upstream_url not in answer.text
    assert f'"{live.settings.upstream[0].name}"' not in answers[1].text


async def test_a_scraper_may_ask_for_openmetrics(tmp_path: Path) -> None:
    async with admin_relay(tmp_path) as relay:
        fields = {"accept": "application/openmetrics-text; version=1.0.0"}
        answer = await admin(relay, "GET", "/metrics", fields)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


def test_buckets_are_cumulated_and_end_with_infinity() -> None:
    histogram = Histogram(SHARE_BOUNDS)
    for us in (50, 100, 101, 2_000_000):
        histogram.add(us)
    buckets = histogram.buckets()
    assert buckets[0] == ("0.0001", 2)
    assert buckets[1] == ("0.00025", 3)
    assert buckets[-1] == ("+Inf", 4)
    assert histogram.total == 2_000_251
