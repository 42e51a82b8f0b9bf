"""The settings of a vendor: how it is recognised, and what its errors mean.

Each section checks itself, as those of `schema` do. Must not know files, TOML or dotted paths.
"""

import math
import re
from typing import Final, Literal

import msgspec

from relay.config.checks import check_name, check_pattern, check_positive, check_time_zone
from relay.config.forms import PlainText, Seconds, TimeZone

_HOST: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PATH: Final = re.compile(r"/[\x21-\x7e]*")
_MODEL_PATTERN: Final = re.compile(r"[\x21-\x7e]{1,128}")


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class RuleSettings(_Section, frozen=True):
    """What one kind of a vendor's errors means. The first rule that matches applies.

    A rule matches if each of `status`, `code` and `says` that it gives matches.
    """

    scope: Literal["caller", "request", "feature", "failure", "model", "account", "credential"]
    reason: PlainText  # for the operator, such as "5-hour limit reached"
    status: int | None = None  # None: any of 400 and more, and errors within a stream
    code: list[str] = []  # error.code or error.type is one of these, numbers as text; []: any
    says: str | None = None  # searched in the error's message, ignoring case; None: any
    seconds: Seconds | None = None  # how long it lasts, if the answer itself does not say

    def __post_init__(self) -> None:
        if not self.reason or len(self.reason) > 100 or not self.reason.isprintable():
            raise ValueError("reason must be a short line of text, 1 to 100 characters")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError("status must be from 200 to 599; leave it out to match any")
        if not all(self.code):
            raise ValueError("code must not contain an empty string; leave it out to match any")
        if self.says is not None:
            check_pattern("says", self.says)
        if self.seconds is not None:
            check_positive(self, "seconds")


class PlanPollSettings(_Section, frozen=True):
    """How to ask a vendor for what is left of a plan: `GET path` at the upstream's origin.

    `left` is a comma-separated list of dotted paths to numbers in the JSON answer; a step `*` is
    every element of a list or every value of a table.
    """

    path: PlainText
    left: PlainText
    every: Seconds = 300.0  # seconds between two requests

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError('path must begin with "/" and be plain ASCII without spaces')
        if not self.left.strip():
            raise ValueError('left must name a number in the answer, such as "usage.remaining"')
        if not self.every >= 60 or not math.isfinite(self.every):
            raise ValueError("every must be at least 60 seconds, and finite")


class VendorSettings(_Section, frozen=True):
    """What all upstreams of one vendor have in common."""

    name: str
    hosts: list[str] = []  # base_urls at these hosts, or below them, are of this vendor
    thinking: str = "anthropic"  # family of its thinking blocks; no other family accepts them
    # Whether input_tokens includes cached tokens.
    usage: Literal["exclusive", "inclusive"] = "exclusive"
    threads: bool = True  # whether it may hold threads of the Messages API
    time_zone: TimeZone = "UTC"  # IANA name, of times that its errors give without a zone
    models: list[str] = []  # patterns of model names, such as "glm-*"; []: any model
    terms: str = ""  # a note on its terms of use, shown to the operator
    quota: PlanPollSettings | None = None
    rules: list[RuleSettings] = []

    def __post_init__(self) -> None:
        check_name("name", self.name)
        for host in self.hosts:
            if not _HOST.fullmatch(host):
                raise ValueError(
                    f"hosts: {host!r} is not a host name in lower case, such as api.example.com"
                )
        check_name("thinking", self.thinking)
        check_time_zone("time_zone", self.time_zone)
        for pattern in self.models:
            if not _MODEL_PATTERN.fullmatch(pattern):
                raise ValueError(
                    f'models: {pattern!r} is not a pattern of model names, such as "glm-*"'
                )
