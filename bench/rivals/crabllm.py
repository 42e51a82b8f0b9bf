"""crabllm: a gateway in Rust.

Decides its configuration: one key, no retries, no storage. Must not know what is measured. It
passes Messages on as they are, and translates chat; chat streams it answers with 404 unless the
upstream itself speaks chat.
"""

from bench.rivals.program import Recipe

_SETTINGS = """\
listen = "127.0.0.1:{port}"

[[keys]]
name = "bench"
key = "{key}"
models = ["*"]

[providers.upstream]
kind = "anthropic"
base_url = "http://127.0.0.1:{upstream_port}/v1"
api_key = "{upstream_key}"
models = ["{model}"]
max_retries = 0
timeout = 600
"""

CRABLLM = Recipe(
    name="crabllm",
    program="crabllm",
    install="cargo install crabllm@0.0.25 --locked",
    argv=("{program}", "serve", "--config", "{folder}/crabllm.toml"),
    # It prints its version nowhere but in the description of its API.
    version=("sh", "-c", """"$0" openapi | grep -m1 '"version"'""", "{program}"),
    files={"crabllm.toml": _SETTINGS},
    dialects=frozenset({"messages", "chat"}),
    streams=frozenset({"messages"}),
    key="sk-llmapi-bench",
    ready="/health",
    forwards_fields=False,
)
