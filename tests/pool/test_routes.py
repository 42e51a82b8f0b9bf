"""Every name that a request may have leads to its targets, or to an error that says why not."""

from typing import Any

import pytest

from relay import config
from relay.errors import RelayError
from relay.net.deadlines import Deadlines
from relay.pool.routes import Routes
from relay.pool.upstream import Upstream
from tests.pool.transcript import Clock

SONNET = {"id": "claude-sonnet-4-7", "aliases": ["sonnet"]}


def upstream_rows(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {"name": name, "base_url": "http://upstream.invalid/prefix/", "api_key": "k", **more}
        for name in names
    ]


def made(upstreams: list[dict[str, Any]], *models: dict[str, Any]) -> tuple[Routes, list[Upstream]]:
    settings = config.parse({"upstream": upstreams, "model": list(models)})
    deadlines = Deadlines(Clock())  # type: ignore[arg-type]
    built = [Upstream(one, settings, deadlines) for one in settings.upstream]
    return Routes(settings.model, built, config.ModelNames(settings.model)), built


async def test_targets_are_ordered_by_priority() -> None:
    late, early = upstream_rows("late", priority=2), upstream_rows("early", priority=1)
    routes, _ = made(late + early, SONNET)
    names = [target.upstream.name for target in routes.find("sonnet").targets]
    assert names == ["early", "late"]
    assert routes.any


@pytest.mark.parametrize(
    ("requested", "model", "shown"),
    [
        ("claude-sonnet-4-7", "glm-5", b"x-relay-model: glm-5\r\n"),
        ("sonnet", "glm-5", b"x-relay-model: glm-5\r\n"),
        ("glm-5", None, b"x-relay-model: glm-5\r\n"),
    ],
)
async def test_a_request_is_changed_only_to_another_name(
    requested: str, model: str | None, shown: bytes
) -> None:
    row = {
        **SONNET,
        "aliases": ["sonnet", "glm-5"],
        "answer_model": "asked",
        "routes": [{"upstream": "one", "model": "glm-5"}],
    }
    routes, _ = made(upstream_rows("one", "two"), row)
    [target] = routes.find(requested).targets
    assert (target.name, target.model, target.fields) == ("glm-5", model, shown)
    assert target.shows_asked_name is (model is not None)


@pytest.mark.parametrize(
    ("models", "available"),
    [((), "none yet"), ((SONNET, {"id": "opus"}), "claude-sonnet-4-7, opus")],
    ids=["no-models", "two-models"],
)
async def test_an_unknown_model_is_refused_with_the_available(
    models: tuple[dict[str, Any], ...], available: str
) -> None:
    routes, _ = made(upstream_rows("one"), *models)
    with pytest.raises(RelayError) as refused:
        routes.find("x" * 500)
    assert (refused.value.kind.status, refused.value.param) == (404, "model")
    assert refused.value.message == f"Unknown model {'x' * 128!r}. Available: {available}."


@pytest.mark.parametrize(
    ("upstreams", "message"),
    [
        ([], "This relay has no upstream yet; its operator adds one to relay.toml."),
        (
            upstream_rows("one", vendor="glm"),
            "No upstream of this relay serves claude-sonnet-4-7; "
            "its operator adds a route to it in relay.toml.",
        ),
    ],
    ids=["no-upstream", "another-vendor"],
)
@pytest.mark.parametrize("requested", ["claude-sonnet-4-7", "sonnet"])
async def test_a_model_without_an_upstream_is_unavailable(
    upstreams: list[dict[str, Any]], message: str, requested: str
) -> None:
    routes, _ = made(upstreams, SONNET)
    assert not routes.any
    with pytest.raises(RelayError) as refused:
        routes.find(requested)
    assert (refused.value.kind.status, refused.value.message) == (503, message)


async def test_further_names_are_remembered_within_a_bound() -> None:
    row = {**SONNET, "aliases": ["sonnet", "house-*"]}
    routes, _ = made(upstream_rows("one"), row)
    first = routes.find("house-0")
    for number in range(5_000):
        assert routes.find(f"house-{number}") is first
        assert routes.find(f"house-{number}[1m]") is first
        assert len(routes._routes) <= 2 + 1_024
    for name in ("claude-sonnet-4-7", "sonnet"):  # what is in relay.toml stays
        assert routes.find(name).targets[0].model == (None if name[0] == "c" else SONNET["id"])
    with pytest.raises(RelayError):
        routes.find("unknown")
    assert "unknown" not in routes._routes


# --- the head of a request ---

FIXED = b"host: upstream.invalid\r\nx-api-key: k\r\naccept-encoding: identity\r\n"


@pytest.mark.parametrize("counting", [False, True])
async def test_a_translated_request_has_a_head_of_its_own(counting: bool) -> None:
    _, [upstream] = made(upstream_rows("one", auth="x-api-key"), SONNET)
    target = b"/prefix/v1/messages" + (b"/count_tokens" if counting else b"")
    head = upstream.messages_head(b"accept: */*\r\n", 7, counting=counting)
    assert head == (
        b"POST %b HTTP/1.1\r\n%baccept: */*\r\ncontent-length: 7\r\n\r\n" % (target, FIXED)
    )


async def test_a_configured_field_replaces_the_callers() -> None:
    rows = upstream_rows("one", auth="x-api-key", headers={"X-Team": "research"})
    _, [upstream] = made(rows, SONNET)
    head = upstream.messages_head(b"x-team: mine\r\nx-other: 1\r\nX-TEAM: a\r\n", 0, counting=False)
    assert head == (
        b"POST /prefix/v1/messages HTTP/1.1\r\n%bX-Team: research\r\nx-other: 1\r\n"
        b"content-length: 0\r\n\r\n" % FIXED
    )
