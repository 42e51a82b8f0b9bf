"""Short relay.toml sections to build test files of."""

from pathlib import Path

from relay import config

UPSTREAM = '[[upstream]]\nname = "a"\nbase_url = "http://a"\napi_key = "k"\n'
MODEL = '[[model]]\nid = "m"\n'
PLAN = '[[plan]]\nid = "p"\n'
PER_TOKEN = '[[plan]]\nid = "p"\nbilling = "per-token"\n'
VENDOR = '[[vendor]]\nname = "v"\n'
RULE = VENDOR + '[[vendor.rules]]\nscope = "account"\nreason = "full"\n'
QUOTA = VENDOR + '[vendor.quota]\npath = "/left"\nleft = "left"\n'
GLM = UPSTREAM.replace("http://a", "https://api.z.ai/api/anthropic")
PRICE = MODEL + "price = { input = 1.0, output = 2.0 }\n"


def load(tmp_path: Path, text: str) -> config.Settings:
    (tmp_path / "relay.toml").write_text(text, encoding="utf-8")
    return config.load(tmp_path / "relay.toml")
