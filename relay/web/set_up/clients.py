"""The clients that the set-up scripts know: where their settings are, and what goes into them.

Decides what is written, for both scripts and the documentation. Must not know shells.
"""

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from relay.config import ModelSettings, Settings

# What only the script knows, in a value: a word between two U+0001.
KEY: Final = "\x01key\x01"
KEY_END: Final = "\x01key_end\x01"  # its last 20 characters, by which Claude Code remembers it
KEY_FILE: Final = "\x01key_file\x01"  # the path of Codex's key file, escaped for a quoted text

NEW_LINE: Final = "\x1e"  # between the lines of a value

# The variables of the scripts that hold folders, and where these are on Linux.
FOLDERS: Final = {
    "claude_folder": "~/.claude",
    "claude_state_folder": "~",
    "codex_folder": "~/.codex",
    "hermes_folder": "~/.hermes",
    "opencode_folder": "~/.config/opencode",
    "code_folder": "~/.config/Code/User",
    "cursor_folder": "~/.config/Cursor/User",
    "windsurf_folder": "~/.config/Windsurf/User",
}

Format = Literal["json", "toml", "yaml", "env", "text"]
Operation = Literal["set", "del", "add", "drop"]


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of one place of a file. `says` is printed if it changed anything."""

    operation: Operation
    place: str
    value: str = ""
    says: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """A file of settings. `folder` is a variable of the scripts; `only_there`: it is left alone
    unless its folder exists."""

    format: Format
    folder: str
    name: str
    edits: tuple[Edit, ...]
    only_there: bool = False
    rival: str = ""  # a file beside it that the client reads too, and prefers

    @property
    def shown(self) -> str:
        """Its path on Linux, as people write it."""
        return f"{FOLDERS[self.folder]}/{self.name}"


@dataclass(frozen=True, slots=True)
class Client:
    """One client. `command` starts it, `install` is how to get it, `note` is said at the end."""

    id: str
    title: str
    command: str
    install: str
    files: tuple[File, ...]
    note: str = ""
    variables: tuple[tuple[str, str], ...] = ()  # of the environment, and what they do to it


@dataclass(frozen=True, slots=True)
class Models:
    """The models that clients get: for everyday work, for hard work, for small tasks, and all."""

    middle: ModelSettings
    large: ModelSettings
    small: ModelSettings
    all: list[ModelSettings]


def choose_models(settings: Settings) -> Models | None:
    """The models of these settings; None: there are none."""
    if not settings.model:
        return None
    middle = _named(settings.model, "sonnet", settings.model[0])
    return Models(
        middle,
        _named(settings.model, "opus", middle),
        _named(settings.model, "haiku", middle),
        settings.model,
    )


def _named(models: list[ModelSettings], part: str, otherwise: ModelSettings) -> ModelSettings:
    return next((model for model in models if part in model.id), otherwise)


def clients(settings: Settings) -> tuple[Client, ...]:
    """The table. Without a model there is nothing to set up."""
    models = choose_models(settings)
    if models is None:
        return ()
    base = settings.server.public_url.rstrip("/")
    return (
        Client(
            "claude-code", "Claude Code", "claude", "npm install -g @anthropic-ai/claude-code",
            _claude_files(base, models), variables=_CLAUDE_VARIABLES,
        ),
        Client(
            "vscode", "Claude Code in VS Code, Cursor and Windsurf", "",
            "install the extension Claude Code in the editor",
            (*_claude_files(base, models), *_editor_files()),
            "Restart the editor.", _CLAUDE_VARIABLES,
        ),
        Client(
            "codex", "Codex CLI", "codex", "npm install -g @openai/codex",
            _codex_files(base, models),
        ),
        Client(
            "hermes", "Hermes Agent", "hermes", "pip install 'hermes-agent[anthropic]'",
            _hermes_files(base, models),
            "It needs its extra: pip install 'hermes-agent[anthropic]'",
            tuple(
                (f"HERMES_INFERENCE_{name}", "Hermes Agent goes by it, not by its settings")
                for name in ("PROVIDER", "MODEL")
            ),
        ),
        Client(
            "opencode", "OpenCode", "opencode", "npm install -g opencode-ai",
            _opencode_files(base, models),
        ),
    )  # fmt: skip


# --- Claude Code and its extensions ---

_VENDORS: Final = tuple(f"CLAUDE_CODE_USE_{name}" for name in ("BEDROCK", "VERTEX", "FOUNDRY"))
_CLAUDE_VARIABLES: Final = (
    ("ANTHROPIC_API_KEY", "Claude Code sends it beside the key of this relay"),
    ("ANTHROPIC_AUTH_TOKEN", "other programs go by it; Claude Code goes by its settings"),
    ("ANTHROPIC_BASE_URL", "other programs go by it; Claude Code goes by its settings"),
    *((name, "it leads Claude Code to another vendor") for name in _VENDORS),
)
_TAKEN_OUT: Final = "taken out of the settings, since it would win: "


def _claude_files(base: str, models: Models) -> tuple[File, ...]:
    """A token, not an API key: an API key needs an approval, and is ignored once it was declined.
    A settings file, not variables: editors and background agents do not see those."""
    values = {
        "ANTHROPIC_BASE_URL": base,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "ANTHROPIC_MODEL": models.middle.id,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": models.large.id,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": models.middle.id,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": models.small.id,
    }
    settings = [
        Edit("del", "apiKeyHelper", says=f"{_TAKEN_OUT}apiKeyHelper"),
        *(
            Edit("del", f"env/{name}", says=f"{_TAKEN_OUT}{name}")
            for name in ("ANTHROPIC_API_KEY", *_VENDORS)
        ),
        *(Edit("set", f"env/{name}", _json(value)) for name, value in values.items()),
    ]
    state = (
        Edit("set", "hasCompletedOnboarding", "true"),
        Edit(
            "drop", "customApiKeyResponses/rejected", _json(KEY_END),
            "this key was once declined in Claude Code; it is approved now",
        ),
        Edit("add", "customApiKeyResponses/approved", _json(KEY_END)),
    )  # fmt: skip
    return (
        File("json", "claude_folder", "settings.json", tuple(settings)),
        File("json", "claude_state_folder", ".claude.json", state),
    )


def _editor_files() -> tuple[File, ...]:
    edits = (Edit("set", "claudeCode.disableLoginPrompt", "true"),)
    return tuple(
        File("json", f"{editor}_folder", "settings.json", edits, only_there=True)
        for editor in ("code", "cursor", "windsurf")
    )


# --- the others ---


def _codex_files(base: str, models: Models) -> tuple[File, ...]:
    """With a command for the key, Codex reads the relay's catalogue of models; with a variable it
    does not. A file serves every shell and every program that starts Codex."""
    provider = (
        "[model_providers.relay]",
        'name = "Relay"',
        f"base_url = {_json(base + '/v1')}",
        'wire_api = "responses"',
        "",
        "[model_providers.relay.auth]",
        f"{READ_FILE}",
    )
    edits = (
        Edit("set", "model", _json(models.middle.id)),
        Edit("set", "model_provider", '"relay"'),
        Edit("del", "profile", says="taken out of the settings, since it would win: profile"),
        Edit("set", "[model_providers.relay]", NEW_LINE.join(provider)),
    )
    return (
        File("text", "codex_folder", "relay-key", (Edit("set", "", KEY),)),
        File("toml", "codex_folder", "config.toml", edits),
    )


# The command that prints the key file; it differs by system.
READ_FILE: Final = "\x01read_file\x01"


def _hermes_files(base: str, models: Models) -> tuple[File, ...]:
    provider = (
        "",
        "  name: Relay",
        f"  base_url: {_json(base)}",
        "  key_env: RELAY_KEY",
        "  api_mode: anthropic_messages",
    )
    edits = (
        Edit("set", "model/default", _json(models.middle.id)),
        Edit("set", "model/provider", "relay"),
        Edit("del", "model/base_url", says=f"{_TAKEN_OUT}model.base_url"),
        Edit("del", "model/api_key", says=f"{_TAKEN_OUT}model.api_key"),
        Edit("del", "model/api_mode", says=f"{_TAKEN_OUT}model.api_mode"),
        Edit("set", "providers/relay", NEW_LINE.join(provider)),
    )
    return (
        File("yaml", "hermes_folder", "config.yaml", edits),
        File("env", "hermes_folder", ".env", (Edit("set", "RELAY_KEY", KEY),)),
    )


def _opencode_files(base: str, models: Models) -> tuple[File, ...]:
    provider = {
        "npm": "@ai-sdk/anthropic",
        "name": "Relay",
        "options": {"baseURL": f"{base}/v1", "apiKey": KEY},
        "models": {
            model.id: {
                "limit": {"context": model.context_window, "output": model.max_output_tokens}
            }
            for model in models.all
        },
    }
    edits = (
        Edit("set", "$schema", '"https://opencode.ai/config.json"'),
        Edit("set", "provider/relay", _json(provider)),
        Edit("set", "model", _json(f"relay/{models.middle.id}")),
        Edit("set", "small_model", _json(f"relay/{models.small.id}")),
    )
    return (File("json", "opencode_folder", "opencode.json", edits, rival="opencode.jsonc"),)


def _json(value: Any) -> str:
    """A value as JSON, which is a text of TOML and YAML too. ASCII, but for its marks."""
    text = json.dumps(value, indent=2).replace("\n", NEW_LINE)
    for mark in (KEY, KEY_END):
        text = text.replace(json.dumps(mark)[1:-1], mark)
    return text.replace("\x7f", "\\u007f")
