"""LiteLLM's proxy server, with its path in Python and with the one in Rust.

Decides its configuration: one worker, a master key, no database, no outside list of prices. Must
not know what is measured. `rust: true` of a model, and `LITELLM_RUST` in versions that have the
switch for the process alone, let its Rust library carry Messages; chat and Responses stay in
Python. It takes several seconds to get ready, and few streams keep its core busy.
"""

from bench.rivals.program import Recipe

_KEY = "sk-llmapi-bench"
_SETTINGS = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: anthropic/{model}
      api_base: http://127.0.0.1:{upstream_port}
      api_key: {upstream_key}%s
general_settings:
  master_key: {key}
"""


def _recipe(name: str, more: str, environment: dict[str, str]) -> Recipe:
    return Recipe(
        name=name,
        program="litellm",
        install="pip install 'litellm[proxy]==1.106.12'",
        argv=(
            *("{program}", "--config", "{folder}/config.yaml", "--host", "127.0.0.1"),
            *("--port", "{port}", "--num_workers", "1", "--keepalive_timeout", "300"),
        ),
        version=(
            *("{bin}/python", "-c"),
            "from importlib.metadata import version; print(version('litellm'))",
        ),
        files={"config.yaml": _SETTINGS % more},
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True", **environment},
        dialects=frozenset({"messages", "chat", "responses"}),
        key=_KEY,
        ready="/health/readiness",
        ready_s=90.0,
        forwards_fields=False,
        most_streams=20,
        warm_s=4.0,  # it loads modules at its first requests
    )


LITELLM = _recipe("litellm", "", {})
LITELLM_RUST = _recipe("litellm-rust", "\n      rust: true", {"LITELLM_RUST": "true"})
