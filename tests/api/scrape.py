"""A scrape of the metrics, read as Prometheus does."""

from prometheus_client.parser import text_string_to_metric_families

from tests.api.admin_listener import admin
from tests.fakes.live import Live

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scraped(relay: Live) -> Samples:
    """All samples of a scrape."""
    answer = await admin(relay, "GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    return sum(
        value for (found, own), value in samples.items()
        if found == name and labels.items() <= dict(own).items()
    )  # fmt: skip
