"""Marked secrets, a relay's process that is given them, and where they are looked for."""

import base64
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from tests.alerts.services import Mailbox
from tests.durability.process import data, relay
from tests.fakes import answers
from tests.fakes.live import Live
from tests.fakes.until import until
from tests.fakes.upstream import Answer, Seen, raw_upstream
from tests.web.visitor import Visitor

PROMPT, REPLY = "marked-prompt-5e1f", "marked-reply-90ab"
TOOL, IMAGE = "marked-tool-31cd", base64.b64encode(b"marked-image-77aa").decode()
CONTENT = (PROMPT, REPLY, TOOL, IMAGE)
# In the environment, or in the settings below.
UPSTREAM, WEBHOOK = "marked-credential-2b7e", "marked-webhook-secret-66"
SMTP, HOOK, OIDC, S3 = "marked-smtp-44", "marked-hook-81", "marked-oidc-19", "marked-s3-key-53"
SETTINGS = """
[server]
listen = ["127.0.0.1:0"]
[web]
sign_up = "open"
sign_up_work = 8
log_ins_per_address = 1000
[mail]
smtp = "{mail}"
encryption = "off"
sender = "relay@example.com"
user = "mailer"
password = "marked-smtp-44"
[backup]
path = "backups"
[backup.s3]
endpoint = "http://127.0.0.1:9"
bucket = "copies"
access_key = "a"
secret_key = "marked-s3-key-53"
[[alert]]
name = "hook"
kind = "webhook"
url = "http://127.0.0.1:9/marked-hook-81"
secret = "marked-webhook-secret-66"
events = ["user", "window", "upstream"]
[[web.oidc]]
name = "main"
issuer = "http://127.0.0.1:9"
client_id = "relay"
client_secret = "marked-oidc-19"
[[upstream]]
name = "main"
base_url = "{upstream}"
api_key = "env:SEAT"
[[model]]
id = "claude-sonnet-4-7"
price = {{ input = 3, output = 15 }}
[[plan]]
id = "free"
max_keys = 50
billing = "per-token"
"""


def quoting_upstream() -> Answer:
    """An upstream that answers with marked words; where the prompt has `fail=STATUS`, with an error
    that repeats the credential and the prompt."""

    async def answer(_: Any, writer: Any, seen: Seen) -> None:
        _, asked, rest = seen.body.partition(b"fail=")
        if asked:
            words = f"the key {UPSTREAM} may not ask {PROMPT} with {TOOL}"
            error = {"type": "error", "error": {"type": "api_error", "message": words}}
            status = rest[:3] + b" Failed"
            writer.write(answers.sized(json.dumps(error).encode(), status))
        elif b'"stream":true' in seen.body.replace(b" ", b""):
            writer.write(answers.head(b"200 OK", b"connection: close", kind=b"text/event-stream"))
            writer.write(b"".join(answers.stream([REPLY])))
            writer.close()
        else:
            document = {
                "id": "msg_1", "type": "message", "role": "assistant",
                "model": "claude-sonnet-4-7", "content": [{"type": "text", "text": REPLY}],
                "stop_reason": "end_turn", "stop_sequence": None,
                "usage": {"input_tokens": 11, "output_tokens": 7},
            }  # fmt: skip
            writer.write(answers.sized(json.dumps(document).encode()))
        await writer.drain()

    return answer


@dataclass
class Canaries:
    """A running relay, the secrets that it has handled, and the answers that may have none."""

    folder: Path
    url: str
    process: subprocess.Popen[bytes]
    secrets: dict[str, str] = field(default_factory=dict)  # name → text
    answered: list[tuple[str, bytes]] = field(default_factory=list)
    shows_once: bool = False  # whether the next answers may hold a secret

    @contextlib.contextmanager
    def showing_once(self) -> Any:
        """What is answered meanwhile shows somebody their own new secret."""
        self.shows_once = True
        try:
            yield
        finally:
            self.shows_once = False

    async def note(self, answer: httpx.Response) -> None:
        """Keep an answer for the sweep: its body, and where it leads."""
        if not self.shows_once:
            await answer.aread()
            place = answer.headers.get("location", "")
            self.answered.append((str(answer.request.url), place.encode() + answer.content))

    def visitor(self) -> Visitor:
        visitor = Visitor(cast(Live, SimpleNamespace(url=self.url)))
        visitor.event_hooks = {"response": [self.note]}
        return visitor

    def client(self) -> httpx.AsyncClient:
        """A program, whose answers are noted."""
        return httpx.AsyncClient(base_url=self.url, event_hooks={"response": [self.note]})

    def run(self, *arguments: str) -> Any:
        """A command's JSON."""
        return data(self.folder, *arguments)

    def note_command(self, *arguments: str) -> None:
        """Keep what a command prints for the sweep."""
        done = relay(self.folder, *arguments)
        assert done.returncode == 0, done.stderr
        self.answered.append((" ".join(arguments), (done.stdout + done.stderr).encode()))

    def sweep(self, **texts: str) -> list[str]:
        """Where a secret, or one of these texts, is found: files below the folder, answers."""
        sources = [(path.name, path.read_bytes()) for path in _files(self.folder)]
        assert {"relay.db", "out", "err"} <= {name for name, _ in sources}
        found = []
        for place, octets in [*sources, *self.answered]:
            found += [
                f"{name} in {place}"
                for name, text in (texts or self.secrets).items()
                if any(form in octets for form in _forms(text))
            ]
        return found


def _forms(text: str) -> set[bytes]:
    """How a text may be written; of its base64, what no neighbour changes."""
    octets = text.encode()
    coded = {base64.b64encode(b"_" * n + octets)[4:-4] for n in (0, 1, 2)}
    return {octets, octets.hex().encode(), json.dumps(text)[1:-1].encode(), *coded}


def _files(folder: Path) -> list[Path]:
    """All but the settings."""
    return [one for one in folder.rglob("*") if one.is_file() and one.name != "relay.toml"]


@contextlib.asynccontextmanager
async def marked_relay(folder: Path, mailbox: Mailbox) -> AsyncIterator[Canaries]:
    """A relay's process with the marked settings, before a quoting upstream."""
    async with raw_upstream(quoting_upstream()) as upstream:
        text = SETTINGS.format(upstream=upstream.url, mail=mailbox.address)
        (folder / "relay.toml").write_text(text)
        with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            process = subprocess.Popen(  # noqa: ASYNC220
                [sys.executable, "-m", "relay", "serve"],
                cwd=folder, stdout=out, stderr=err, env={**os.environ, "SEAT": UPSTREAM},
            )  # fmt: skip
        try:
            await until(lambda: b"listens on http" in (folder / "err").read_bytes(), within=30)
            said = (folder / "err").read_text()
            url = "http://" + said.split("http://")[1].split()[0].strip(",")
            canaries = Canaries(folder, url, process)
            canaries.secrets = {
                "credential": UPSTREAM, "webhook secret": WEBHOOK, "webhook address": HOOK,
                "SMTP password": SMTP, "OIDC secret": OIDC, "S3 key": S3,
            }  # fmt: skip
            yield canaries
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
