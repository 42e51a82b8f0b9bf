"""The line of the access log for one request."""

import msgspec


class AccessRecord(msgspec.Struct, omit_defaults=True):
    """One request; a field without a value stays at its default and is left out of the line.

    Times are microseconds: `us` from the request's head to the last octet, `wait_us` the wait for
    a free upstream, `relay_us` the relay's own share before the upstream, `upstream_us` the
    upstream's until its head, `first_us` from the request's head to the first content of a
    stream. `rule` says how the request was settled (`gateway.admission`).
    `outcome`: `whole`, `refused: …`, `cut: …`, `caller left` or `failed`.
    `choice`: the upstream is the `only` one, has the `session`, or the session's `hash` or its
    `turn` led to it. `passed`: the upstreams that could not be chosen, and why. `tried`: those that
    failed the request.
    `agent`: the helper of an agent, by its client's name for it (Codex CLI: `review`, `compact`).
    `served`: the model that the upstream names, where it is not the model that was sent.
    """

    time: str
    id: str
    peer: str
    method: str
    path: str
    status: int = 0
    outcome: str = ""
    rule: str = ""
    user: str = ""
    key: str = ""
    agent: str = ""
    model: str = ""
    upstream: str = ""
    choice: str = ""
    passed: str = ""
    tried: str = ""
    served: str = ""
    upstream_id: str = ""
    stop: str | None = None
    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    us: int = 0
    wait_us: int = 0
    relay_us: int = 0
    upstream_us: int = 0
    first_us: int = 0
