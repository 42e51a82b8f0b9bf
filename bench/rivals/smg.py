"""smg (Shepherd Model Gateway): a router in front of inference servers, in Rust.

Decides its command line. Must not know what is measured. With the Anthropic backend it carries
Messages alone. It forwards the caller's credential to the upstream and has none of its own here:
with `--api-key` it would ask the upstream for its models without the version that the API
demands, and serve nothing. Its probe of `/health` is off, since the API has no such path.
"""

from bench.rivals.program import Recipe

SMG = Recipe(
    name="smg",
    program="smg",
    install="pip install smg==1.13.0",
    argv=(
        *("{program}", "launch", "--host", "127.0.0.1", "--port", "{port}"),
        *("--worker-urls", "http://127.0.0.1:{upstream_port}", "--backend", "anthropic"),
        *("--prometheus-host", "127.0.0.1", "--prometheus-port", "{admin_port}"),
        *("--history-backend", "none", "--disable-health-check"),
        *("--shutdown-grace-period-secs", "0"),
    ),
    version=(
        *("{bin}/python", "-c"),
        "from importlib.metadata import version; print(version('smg'))",
    ),
    dialects=frozenset({"messages"}),
    ready="/readiness",
    ready_s=30.0,
    forwards_fields=False,
)
