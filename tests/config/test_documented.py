"""Every setting is in relay/docs/configuration.md, with its default."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay import config
from relay.config import (
    alerts,
    backup,
    oidc,
    payments,
    schema,
    tls_schema,
    traces,
    vendor_schema,
    web,
)
from relay.config.capabilities import Overrides

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "relay" / "docs" / "configuration.md").read_text()
HEADINGS: dict[type[msgspec.Struct], str] = {
    schema.ServerSettings: "[server]",
    tls_schema.TlsSettings: "[server.tls]",
    tls_schema.AcmeSettings: "[acme]",
    schema.HeadLimitSettings: "[server.limits]",
    schema.ServerTimeoutSettings: "[server.timeouts]",
    schema.DatabaseSettings: "[database]",
    config.LedgerSettings: "[ledger]",
    schema.LogSettings: "[log]",
    schema.PoolSettings: "[pool]",
    schema.ResponsesSettings: "[responses]",
    schema.UpstreamSettings: "[[upstream]]",
    schema.CostCapSettings: "upstream.cost_cap",
    schema.UpstreamTimeoutSettings: "[upstream.timeouts]",
    schema.ModelSettings: "[[model]]",
    schema.RouteSettings: "model.routes",
    schema.PriceSettings: "model.price",
    Overrides: "accepts",
    schema.PlanSettings: "[[plan]]",
    schema.LimitSettings: "limits",
    vendor_schema.VendorSettings: "[[vendor]]",
    vendor_schema.PlanPollSettings: "vendor.quota",
    vendor_schema.RuleSettings: "[[vendor.rules]]",
    backup.BackupSettings: "[backup]",
    backup.StorageSettings: "[backup.s3]",
    alerts.AlertingSettings: "[alerting]",
    alerts.AlertSettings: "[[alert]]",
    web.MailSettings: "[mail]",
    web.WebSettings: "[web]",
    oidc.OidcSettings: "[[web.oidc]]",
    traces.TracesSettings: "[traces]",
    payments.PaymentsSettings: "[payments]",
    payments.OfferSettings: "[[payments.offer]]",
}
ROW = re.compile(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
WITH_HEADING = {"server.tls", "server.limits", "server.timeouts", "upstream.timeouts", "backup.s3"}
BLOCK = re.compile(r"^```toml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "relay" / "docs").glob("*.md"))]
# A section that a snippet leaves out, because another part of its page shows it.
UPSTREAMS = [
    {"name": name, "base_url": "https://api.example", "api_key": "k"}
    for name in ("anthropic-main", "spare")
]


def structs(of: Any) -> Iterator[type[msgspec.Struct]]:
    """The settings classes that a type mentions, at any depth."""
    if isinstance(of, type) and issubclass(of, msgspec.Struct):
        yield of
        for field in msgspec.structs.fields(of):
            yield from structs(field.type)
    for inner in getattr(of, "__args__", ()):
        yield from structs(inner)


def section(heading: str) -> dict[str, str]:
    """The rows below a heading: setting → default, as the page has it."""
    found = re.search(rf"^##+ {re.escape(heading)}$\n(.*?)(?=^##|\Z)", PAGE, re.M | re.S)
    assert found is not None, f"configuration.md has no section {heading}"
    return dict(ROW.findall(found[1]))


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def test_every_settings_class_has_a_section() -> None:
    assert set(structs(schema.Settings)) - {schema.Settings} == set(HEADINGS)


@pytest.mark.parametrize("settings", HEADINGS, ids=lambda settings: settings.__name__)
def test_every_setting_is_documented_with_its_default(settings: type[msgspec.Struct]) -> None:
    heading = HEADINGS[settings]
    documented = section(heading)
    parent = heading.strip("[]")
    expected = {
        field.name: field
        for field in msgspec.structs.fields(settings)
        if f"{parent}.{field.name}" not in WITH_HEADING
    }
    assert list(documented) == list(expected)
    for name, field in expected.items():
        default, shown = default_of(field), documented[name]
        if default is msgspec.NODEFAULT:
            assert shown == "required", name
        elif default is None:
            assert shown == "none", name
        elif default is msgspec.UNSET:
            assert shown == "by model", name
        else:
            assert tomllib.loads(f"value = {shown.strip('`')}")["value"] == default, name


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=f"{path.name}-{number}")
        for path in DOCUMENTS
        for number, text in enumerate(BLOCK.findall(path.read_text()))
        # The settings of Codex CLI, and those of a rival in the bench.
        if "model_providers" not in text and "argv" not in text
    ],
)
def test_a_snippet_of_relay_toml_is_accepted(text: str) -> None:
    tree = tomllib.loads(text)
    tree.setdefault("upstream", UPSTREAMS)
    config.parse(tree)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_a_link_leads_to_a_page_and_a_heading(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.is_file() or page.is_dir(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
            assert anchor in slugs, target
