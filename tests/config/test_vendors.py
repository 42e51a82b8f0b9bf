"""Vendors: shipped ones, those of relay.toml, and whose an upstream is."""

import tomllib

import msgspec
import pytest

from relay import config
from relay.config.vendors import shipped
from tests.config.sections import RULE, VENDOR


def vendors(text: str) -> dict[str, config.VendorSettings]:
    settings = config.parse(tomllib.loads(text))
    assert len({vendor.name for vendor in settings.vendor}) == len(settings.vendor)
    return {vendor.name: vendor for vendor in settings.vendor}


def test_shipped_vendors_are_known_and_generic_always_is() -> None:
    assert vendors("") == {vendor.name: vendor for vendor in shipped()}
    assert {"anthropic", "glm", "generic"} <= set(vendors(""))
    assert config.vendor_of(config.Settings(), upstream_at("http://a")).name == "generic"


def test_a_vendor_of_the_file_changes_only_what_it_gives() -> None:
    before = vendors("")["glm"]
    after = vendors('[[vendor]]\nname = "glm"\nterms = "ours"\nmodels = []\n')["glm"]
    assert (after.terms, after.models) == ("ours", [])
    assert before == msgspec.structs.replace(after, terms=before.terms, models=before.models)
    ruled = vendors(RULE.replace('"v"', '"glm"'))["glm"]
    assert [rule.reason for rule in ruled.rules] == ["full"]
    assert msgspec.structs.replace(ruled, rules=before.rules) == before


def test_a_vendor_can_be_given_a_default_back() -> None:
    assert vendors('[[vendor]]\nname = "glm"\ntime_zone = "UTC"\nthinking = "anthropic"\n')[
        "glm"
    ] == msgspec.structs.replace(vendors("")["glm"], time_zone="UTC", thinking="anthropic")


def test_a_vendor_of_another_name_is_a_new_one() -> None:
    found = vendors(VENDOR + 'hosts = ["llm.example"]\n')
    assert found.pop("v") == config.VendorSettings(name="v", hosts=["llm.example"])
    assert found == vendors("")


def upstream_at(base_url: str, vendor: str = "") -> config.UpstreamSettings:
    return config.UpstreamSettings(name="a", base_url=base_url, api_key="k", vendor=vendor)


@pytest.mark.parametrize(
    ("base_url", "named", "vendor"),
    [
        ("https://api.anthropic.com", "", "anthropic"),
        ("https://API.Anthropic.com.:443/", "", "anthropic"),
        ("https://api.z.ai/api/anthropic", "", "glm"),
        ("https://eu.api.z.ai", "", "glm"),
        ("https://notapi.z.ai", "", "generic"),
        ("https://api.z.ai.example", "", "generic"),
        ("http://127.0.0.1:8082", "", "generic"),
        ("http://127.0.0.1:8082", "glm", "glm"),
        ("https://api.anthropic.com", "generic", "generic"),
        ("https://deep.llm.example", "", "inner"),  # the longest host
        ("https://other.llm.example", "", "outer"),
        ("https://open.bigmodel.cn", "", "outer"),  # the file's own before a shipped one
    ],
)
def test_a_vendor_is_recognised_by_host_unless_named(
    base_url: str, named: str, vendor: str
) -> None:
    text = (
        '[[vendor]]\nname = "inner"\nhosts = ["deep.llm.example"]\n'
        '[[vendor]]\nname = "outer"\nhosts = ["llm.example", "open.bigmodel.cn"]\n'
    )
    settings = config.parse(tomllib.loads(text))
    assert config.vendor_of(settings, upstream_at(base_url, named)).name == vendor


@pytest.mark.parametrize(
    ("patterns", "name", "served"),
    [
        ([], "anything", True),
        (["glm-*"], "glm-4.7", True),
        (["glm-*"], "GLM-4.7", True),
        (["MiniMax-*"], "minimax-m2", True),
        (["glm-*"], "claude-opus-4-8", False),
        (["glm-*"], "x-glm-4.7", False),
        (["a", "k[0-9]"], "k3", True),
    ],
)
def test_a_vendor_serves_names_that_match_its_patterns(
    patterns: list[str], name: str, served: bool
) -> None:
    assert config.serves(config.VendorSettings(name="v", models=patterns), name) is served
