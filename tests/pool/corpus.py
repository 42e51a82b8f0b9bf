"""The corpus of errors: tests/corpora/refusals.toml, with the verdict on each."""

import tomllib
from datetime import UTC, datetime
from functools import cache
from typing import Literal

import msgspec

from relay import config
from relay.config.vendors import shipped
from relay.pool.vendor_errors import ErrorClassifier, Scope, Verdict
from tests.corpora import CORPORA

CORPUS = CORPORA / "refusals.toml"
NOW = datetime(2026, 9, 8, 20, tzinfo=UTC)
LONG = 8 * 86400.0


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    source: str
    scope: Scope
    harms: Literal["nobody", "feature", "model", "account", "credential", "upstream"]
    vendor: str = "generic"
    status: int = 0
    headers: dict[str, str] = {}
    body: str = ""
    model: str = "claude-sonnet-5"
    now: datetime = NOW
    counting: bool = False
    event: bool = False
    until: datetime | float = 0.0
    stated: bool = False


CASES = msgspec.convert(tomllib.loads(CORPUS.read_text("utf-8"))["case"], list[Case])


@cache
def vendors() -> dict[str, config.VendorSettings]:
    return {vendor.name: vendor for vendor in shipped()}


@cache
def classifier(vendor: str = "generic", longest: float = LONG) -> ErrorClassifier:
    return ErrorClassifier(vendors()[vendor], longest)


def judged(case: Case, longest: float = LONG) -> Verdict:
    errors, now = classifier(case.vendor, longest), case.now.timestamp()
    body = case.body.encode()
    if case.event:
        return errors.judge_event(body, case.model, now)
    headers = {name.encode(): value.encode() for name, value in case.headers.items()}
    return errors.judge(case.status, headers, body, case.model, now, case.counting)
