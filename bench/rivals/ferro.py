"""Ferro Labs AI Gateway: a gateway in Go.

Decides its configuration: one target, no limit of requests, nothing persistent. Must not know
what is measured. It translates chat; Messages it passes on to upstreams that speak OpenAI's API
alone, so that it has no other dialect here.
"""

from bench.rivals.program import Recipe

_SETTINGS = """\
strategy:
  mode: single
targets:
  - virtual_key: anthropic
    models: [{model}]
"""

FERRO = Recipe(
    name="ferro",
    program="ferrogw",
    install="pip install ferrogw==1.5.10",
    argv=("{program}", "serve"),
    version=("{program}", "version"),
    files={"config.yaml": _SETTINGS},
    environment={
        "GATEWAY_CONFIG": "{folder}/config.yaml",
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:{upstream_port}",
        "ANTHROPIC_API_KEY": "{upstream_key}",
        "MASTER_KEY": "{key}",
        "PORT": "{port}",
        "RATE_LIMIT_RPS": "0",
    },
    dialects=frozenset({"chat"}),
    key="fgw_llmapi_bench",
    ready="/health",
    ready_s=30.0,
    forwards_fields=False,
)
