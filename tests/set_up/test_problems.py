"""Each problem that setup.sh finds: provoked, and named with what to do."""

import asyncio
import json

import pytest

from relay import config
from relay.web.set_up.script import setup_sh
from tests.clients.programs import Ended
from tests.fakes.live import MODELS, RelayWith
from tests.fakes.ports import free_port
from tests.fakes.upstream import OK, Seen, UpstreamWith, always
from tests.set_up.conftest import Home, NewHome, shell_command

YES = "--client claude-code --yes"


async def pointed_at(home: Home, url: str, **env: str) -> Ended:
    """Run the script of a relay with another address."""
    tree = {"model": MODELS, "plan": [{"id": "free"}], "server": {"public_url": url}}
    (home.folder.parent / "other.sh").write_text(setup_sh(config.parse(tree)))
    line = f"{shell_command('dash')} ../other.sh {YES}"
    return await home.run(line, RELAY_KEY=home.live.key, **env)


async def test_a_missing_client(home: Home) -> None:
    ended = await home.set_up("--yes")
    assert (ended.status, home.files()) == (1, {})
    assert "There is no client on this machine that this script knows." in ended.err
    assert "Claude Code: npm install -g @anthropic-ai/claude-code" in ended.err
    ended = await home.set_up(YES)
    assert ended.status == 0
    assert "Claude Code is not installed. It is set up all the same." in ended.err
    assert (home.folder / ".claude/settings.json").is_file()


async def test_variables_of_the_shell_and_its_files(home: Home) -> None:
    home.install("claude")
    home.write(".bashrc", "# ANTHROPIC_API_KEY=no\n\n  export ANTHROPIC_API_KEY=sk-secret\n")
    home.write(".config/fish/config.fish", "set -gx ANTHROPIC_BASE_URL https://old.example\n")
    home.write(".zshrc", "CLAUDE_CODE_USE_BEDROCK=1 claude\nANTHROPIC_API_KEYS=1\n")
    ended = await home.set_up("--yes", CLAUDE_CODE_USE_VERTEX="1")
    assert ended.status == 0
    says = (
        "~/.bashrc sets ANTHROPIC_API_KEY in line 3: Claude Code sends it beside the key of this "
        "relay. Take that line out, and open a new terminal.",
        "~/.config/fish/config.fish sets ANTHROPIC_BASE_URL in line 1: other programs go by it;",
        "~/.zshrc sets CLAUDE_CODE_USE_BEDROCK in line 1: it leads Claude Code to another vendor.",
        "CLAUDE_CODE_USE_VERTEX is set in this shell: it leads Claude Code to another vendor. "
        "Before you start the client: unset CLAUDE_CODE_USE_VERTEX",
    )
    for words in says:
        assert words in ended.err
    assert ended.err.count(" sets ") == 3
    assert "sk-secret" not in ended.err


async def test_old_settings_of_the_client(home: Home) -> None:
    old = {"apiKeyHelper": "/bin/key", "env": {"CLAUDE_CODE_USE_BEDROCK": "1"}}
    home.write(".claude/settings.json", json.dumps(old))
    home.write(".codex/config.toml", 'profile = "work"\n')
    home.write(".config/opencode/opencode.jsonc", "{}\n")
    ended = await home.set_up("--client claude-code,codex,opencode --yes")
    assert ended.status == 0, ended.err
    out = "taken out of the settings, since it would win: "
    assert f"~/.claude/settings.json: {out}apiKeyHelper" in ended.err
    assert f"~/.claude/settings.json: {out}CLAUDE_CODE_USE_BEDROCK" in ended.err
    assert f"~/.codex/config.toml: {out}profile" in ended.err
    assert "~/.config/opencode/opencode.jsonc is read too, and what it says wins." in ended.err


async def test_a_declined_key(home: Home) -> None:
    home.install("claude")
    end = home.live.key[-20:]
    state = {"customApiKeyResponses": {"approved": [], "rejected": ["other", end]}}
    home.write(".claude.json", json.dumps(state, indent=2))
    ended = await home.set_up("--yes")
    assert "this key was once declined in Claude Code; it is approved now" in ended.err
    assert json.loads(home.read(".claude.json"))["customApiKeyResponses"] == {
        "approved": [end],
        "rejected": ["other"],
    }


async def test_a_blocked_port(home: Home) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    ended = await pointed_at(home, url)
    assert (ended.status, home.files()) == (1, {})
    assert (
        f"Nothing answers at {url}. The relay is down, or a firewall blocks its port." in ended.err
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (6, "There is no host 127.0.0.1. Check the address and the connection to the Internet."),
        (28, "within 10 seconds. A firewall blocks its port, or the network is down."),
        (60, "is refused: curl says why Is your clock right? It says "),
        (52, "cannot be reached: curl says why"),
    ],
)
async def test_other_trouble_of_the_connection(home: Home, code: int, words: str) -> None:
    (home.programs / "curl").unlink()
    home.write("../programs/curl", f"#!/bin/sh\necho 'curl says why' >&2\nexit {code}\n", 0o755)
    ended = await pointed_at(home, home.live.url)
    assert (ended.status, home.files()) == (1, {})
    assert words in ended.err


async def test_another_server_at_the_address(home: Home, upstream_with: UpstreamWith) -> None:
    page = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
    ended = await pointed_at(home, (await upstream_with(always(page))).url)
    assert ended.status == 1
    assert "with status 503. Is a log-in page of the network or a proxy in between?" in ended.err


@pytest.mark.parametrize(
    ("shift", "words"), [(-3750, "62 minutes slow"), (930, "15 minutes fast"), (60, "")]
)
async def test_a_wrong_clock(home: Home, shift: int, words: str) -> None:
    home.install("claude")
    real = (home.programs / "date").resolve()
    (home.programs / "date").unlink()
    home.write("../programs/date", f'#!/bin/sh\necho $(($({real} "$@") + {shift}))\n', 0o755)
    ended = await home.set_up("--yes")
    assert ended.status == 0, ended.err
    said = f"Your clock is {words}. Set it right: certificates and log-ins depend on it."
    assert (said in ended.err) == bool(words)
    assert ("Your clock is" in ended.err) == bool(words)


async def test_a_proxy_in_the_way(home: Home) -> None:
    proxy = f"http://ada:secret@127.0.0.1:{free_port()}"
    ended = await pointed_at(home, home.live.url, http_proxy=proxy)
    assert (ended.status, home.files()) == (1, {})
    shown = proxy.replace("ada:secret", "***")
    assert f"The proxy of http_proxy={shown} does not lead to {home.live.url}" in ended.err
    assert "Go around it: export NO_PROXY=127.0.0.1 no_proxy=127.0.0.1" in ended.err
    assert "secret" not in ended.err


async def test_a_proxy_that_works_is_named(home: Home) -> None:
    ended = await pointed_at(home, home.live.url, http_proxy=home.live.url)
    assert ended.status == 0, ended.err
    assert f"It is reached through a proxy: http_proxy={home.live.url}" in ended.err


async def test_a_wrong_key(home: Home) -> None:
    home.install("claude")
    ended = await home.set_up("--yes", key="sk-llmapi-wrong")
    assert (ended.status, home.files()) == (1, {})
    assert "The relay refuses the key: " in ended.err
    [line] = [line for line in home.live.log() if line["status"] == 401]
    assert f"Make another one at {home.live.url}/dashboard/keys" in ended.err
    said = ended.err.partition("refuses the key: ")[2].partition(" Make another")[0]
    assert len(said) > 20
    assert "sk-llmapi-wrong" not in ended.err
    assert line["path"] == "/v1/messages"


async def test_no_key(home: Home) -> None:
    home.install("claude")
    ended = await home.set_up("--yes", key=None)
    assert (ended.status, home.files()) == (1, {})
    assert "There is no key. Give one with --key or in RELAY_KEY" in ended.err


async def relay_at_its_address(relay_with: RelayWith, home_of: NewHome, **sections: object) -> Home:
    port = free_port()
    server = {"listen": [f"127.0.0.1:{port}"], "public_url": f"http://127.0.0.1:{port}"}
    home = home_of(await relay_with(server=server, **sections))
    home.install("claude")
    return home


async def test_a_used_up_limit(relay_with: RelayWith, home_of: NewHome) -> None:
    plan = {"id": "free", "limits": [{"requests": 2, "per": "5h"}], "max_keys": 3}
    home = await relay_at_its_address(relay_with, home_of, plan=[plan])
    assert (await home.set_up("--yes")).status == 0
    ended = await home.set_up("--yes")
    assert ended.status == 0, ended.err
    assert "The key is right, but it has nothing left: " in ended.err
    assert "2 requests" in ended.err


async def test_a_relay_whose_upstream_fails(
    relay_with: RelayWith, home_of: NewHome, upstream_with: UpstreamWith
) -> None:
    failing = b"HTTP/1.1 529 O\r\ncontent-type: application/json\r\ncontent-length: 65\r\n\r\n"
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}'
    upstream = await upstream_with(always(failing.replace(b"65", b"%d" % len(body)) + body))
    home = await relay_at_its_address(
        relay_with, home_of, upstream=[{"name": "a", "base_url": upstream.url, "api_key": "k"}]
    )
    ended = await home.set_up("--yes")
    assert ended.status == 0, ended.err
    assert "The relay cannot answer now: " in ended.err
    assert "The settings are written all the same." in ended.err


async def test_a_stream_that_is_held_back(home: Home, upstream_with: UpstreamWith) -> None:
    ended = await pointed_at(home, (await upstream_with(always(OK))).url)
    assert ended.status == 0, ended.err
    assert "A stream does not come through." in ended.err


async def test_an_error_moves_no_cursor(home: Home, upstream_with: UpstreamWith) -> None:
    """Whatever is at the address, its words are shown without control characters."""
    body = b'{"error":{"message":"red \x1b[31m\\u001b[31m \\"here\\""}}'
    fine = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    refusal = b"HTTP/1.1 404 No\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        writer.write(fine if b"/healthz" in seen.head else refusal)

    ended = await pointed_at(home, (await upstream_with(answer)).url)
    assert ended.status == 1
    assert 'The relay answers with status 404: red [31mu001b[31m "here"' in ended.err
    assert "\x1b" not in ended.err


@pytest.mark.parametrize("tool", ["curl", "awk"])
async def test_a_missing_tool(home: Home, tool: str) -> None:
    (home.programs / tool).unlink()
    ended = await pointed_at(home, home.live.url)
    assert ended.status == 1
    assert f"This script needs {tool}. Install it first." in ended.err


async def test_sudo(home: Home) -> None:
    (home.programs / "id").unlink()
    home.write("../programs/id", '#!/bin/sh\n[ "$1" = -u ] && echo 0 || echo root\n', 0o755)
    home.install("claude")
    ended = await home.set_up("--yes", SUDO_USER="ada")
    assert "the settings of root are written, not those of ada." in ended.err
