"""What a person pastes to use a key: one snippet for each client.

The same ones as in relay/docs/clients.md, which the tests run. Must not know pages.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from relay.config import Settings


@dataclass(frozen=True, slots=True)
class Snippet:
    """A text to copy; `id` finds its title in `snippets.*`."""

    id: str
    text: str


def snippets(settings: Settings, key: str) -> list[Snippet]:
    """All snippets, with a key or with what stands for one."""
    url = settings.server.public_url.rstrip("/")
    ids = [model.id for model in settings.model]
    model = next((id for id in ids if "sonnet" in id), ids[0] if ids else "MODEL")
    small = next((id for id in ids if "haiku" in id), model)
    provider = (urlsplit(url).hostname or "relay").replace(".", "-")
    body = '{"model": "%s", "max_tokens": 200, "messages": [{"role": "user", "content": "Hello!"}]}'
    return [
        Snippet(
            "claude_code",
            f"export ANTHROPIC_BASE_URL={url}\n"
            f"export ANTHROPIC_AUTH_TOKEN={key}\n"
            f"export ANTHROPIC_MODEL={model}\n"
            f"export ANTHROPIC_DEFAULT_HAIKU_MODEL={small}\n"
            "claude",
        ),
        Snippet(
            "codex",
            "# ~/.codex/config.toml\n"
            f'model = "{model}"\n'
            f'model_provider = "{provider}"\n\n'
            f"[model_providers.{provider}]\n"
            'name = "Relay"\n'
            f'base_url = "{url}/v1"\n'
            'wire_api = "responses"\n\n'
            f"[model_providers.{provider}.auth]\n"
            'command = "printenv"\n'
            'args = ["RELAY_KEY"]\n\n'
            "# in the shell\n"
            f"# export RELAY_KEY={key}",
        ),
        Snippet(
            "anthropic",
            "import anthropic\n\n"
            f'client = anthropic.Anthropic(base_url="{url}", api_key="{key}")\n'
            "message = client.messages.create(\n"
            f'    model="{model}",\n'
            "    max_tokens=200,\n"
            '    messages=[{"role": "user", "content": "Hello!"}],\n'
            ")\n"
            "print(message.content[0].text)",
        ),
        Snippet(
            "openai",
            "import openai\n\n"
            f'client = openai.OpenAI(base_url="{url}/v1", api_key="{key}")\n'
            "answer = client.chat.completions.create(\n"
            f'    model="{model}",\n'
            '    messages=[{"role": "user", "content": "Hello!"}],\n'
            ")\n"
            "print(answer.choices[0].message.content)",
        ),
        Snippet(
            "curl",
            f"curl {url}/v1/messages -H 'x-api-key: {key}' "
            "-H 'anthropic-version: 2023-06-01' -H 'content-type: application/json' "
            f"-d '{body % model}'",
        ),
    ]
