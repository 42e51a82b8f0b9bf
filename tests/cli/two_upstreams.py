"""A relay.toml with two upstreams and an admin listener, for `relay` in a process of its own."""

from pathlib import Path

from tests.durability.process import relay

SETTINGS = """
[server]
listen = ["127.0.0.1:0"]
admin_listen = "{admin}"

[database]
path = "{database}"

[[upstream]]
name = "one"
base_url = "http://127.0.0.1:9"
api_key = "sk-upstream-canary"
max_concurrency = 8
limits = [{{ requests = 600, per = "5h" }}]

[[upstream]]
name = "two"
base_url = "http://127.0.0.1:9"
api_key = "sk-upstream-canary"
priority = 1
vendor = "glm"

[[model]]
id = "claude-sonnet-4-7"
{routes}
[[plan]]
id = "free"
"""
ROUTES = 'routes = [{ upstream = "one" }, { upstream = "two", model = "glm-5" }]\n'


def configure(folder: Path, admin: str = "", database: str = "relay.db") -> Path:
    """Write this relay.toml into a folder."""
    folder.mkdir(exist_ok=True)
    admin = admin or f"unix:{folder}/admin.sock"
    text = SETTINGS.format(admin=admin, database=database, routes=ROUTES)
    (folder / "relay.toml").write_text(text)
    return folder


def error_of(folder: Path, *arguments: str) -> str:
    """The one line on standard error of `relay upstreams`, which fails."""
    done = relay(folder, "upstreams", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
