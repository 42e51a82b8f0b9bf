"""Commands on a running relay: what its upstreams do, and pausing them.

Decides how the admin listener is asked and how its answers are shown. It is the running relay
that knows and does; only one that serves from this relay.toml's database is asked to do
anything. Importing this adds the commands to the command line.
"""

import http.client
import json
import os
import socket
import time
from typing import Any, Final
from urllib.parse import quote

import click

from relay import clock, config
from relay.cli.accounts import print_records
from relay.cli.program import Failure, load_settings, main, print_json, with_config, with_json

_PATIENCE: Final = 3.0  # seconds
_JSON: Final = "relay.cli.upstreams.json"
_ANY: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - addresses to ask, not to bind


@main.group(invoke_without_command=True)
@with_config
@with_json
@click.pass_context
def upstreams(context: click.Context, as_json: bool) -> None:
    """Upstreams of the relay that runs: what they do at this moment."""
    context.meta[_JSON] = as_json  # it may stand before the subcommand, too
    if context.invoked_subcommand is not None:
        return
    found = _ask(load_settings())
    if as_json:
        print_json(found)
        return
    rows = [_row(one) for one in found["upstreams"]]
    # What no upstream has anything of would only take room from the rest.
    empty = {name for name in (rows[0] if rows else ()) if not any(row[name] for row in rows)}
    empty -= {"in_flight", "requests", "sessions"}
    shown = [{name: row[name] for name in row if name not in empty} for row in rows]
    print_records(shown, False, "There are no upstreams.")
    if found["waiting"]:
        click.echo(f"Requests that wait for an upstream: {found['waiting']}.")
    for line in _terms(found["upstreams"]):
        click.echo(line)


@upstreams.command("pause")
@click.argument("name")
@with_config
@with_json
def upstreams_pause(name: str, as_json: bool) -> None:
    """Give the upstream NAME no more requests, until resumed, over restarts too."""
    done = _act(name, "pause")
    flying = done["in_flight"]
    rest = f" Requests that it is still at work on: {flying}." if flying else ""
    _print_done(done, as_json, f"{name} is paused.{rest}")


@upstreams.command("resume")
@click.argument("name")
@with_config
@with_json
def upstreams_resume(name: str, as_json: bool) -> None:
    """Give the upstream NAME requests again."""
    done = _act(name, "resume")
    state = "" if done["state"] == "ok" else f" It is {_state(done)}: {done['why']}."
    _print_done(done, as_json, f"{name} is resumed.{state}")


@upstreams.command("clear")
@click.argument("name")
@with_config
@with_json
def upstreams_clear(name: str, as_json: bool) -> None:
    """Forget all trouble that the upstream NAME had, and try it again at once."""
    done = _act(name, "clear")
    rest = " It stays paused." if done["state"] == "paused" else ""
    _print_done(
        done, as_json, f"{name} may serve again; what it failed before stays counted.{rest}"
    )


def _print_done(done: dict[str, Any], as_json: bool, words: str) -> None:
    if as_json or click.get_current_context().meta[_JSON]:
        print_json(done)
    else:
        click.echo(words)


# --- asking ---


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def _connection(where: config.Address) -> http.client.HTTPConnection:
    if where.path is not None:
        return _UnixConnection(where.path)
    host = _ANY.get(where.host, where.host)
    return http.client.HTTPConnection(host, where.port, timeout=_PATIENCE)


def _act(name: str, action: str) -> dict[str, Any]:
    """Have the running relay do something; the upstream as it is then."""
    settings = load_settings()
    _ask(settings)  # tells an operator who means another relay so, in words of this command's
    done: dict[str, Any] = _ask(settings, "POST", f"/upstreams/{quote(name, safe='')}/{action}")
    return done


def _ask(settings: config.Settings, method: str = "GET", path: str = "/upstreams") -> Any:
    """What the running relay answers. Everything else is an error in one line."""
    from relay.api.admin import PROOF, identity, proof

    text = settings.server.admin_listen
    if not text:
        raise Failure(
            "relay: server.admin_listen is empty, so that no relay can be asked; set it and "
            "start the relay again"
        )
    connection = _connection(text)
    headers = {PROOF: proof(settings.database.path)} if method == "POST" else {}
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        status, answer = response.status, json.loads(response.read())
    except TimeoutError:
        raise Failure(
            f"relay: the relay at {text} does not answer within {_PATIENCE:.0f} s; see its log"
        ) from None
    except OSError as error:
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise Failure(
            f"relay: no relay can be asked at {text} ({why}); start it with `relay serve`, or "
            "see that server.admin_listen is what it was started with"
        ) from None
    except (http.client.HTTPException, ValueError):
        raise _stranger(text) from None
    finally:
        connection.close()
    if status != 200:
        try:
            told = str(answer["error"]["message"])
        except (KeyError, TypeError):
            raise _stranger(text) from None
        raise Failure(f"relay: {told}")
    if method == "GET":
        if not isinstance(answer, dict) or "database" not in answer:
            raise _stranger(text)
        if answer["database"] != identity(settings.database.path):
            raise Failure(
                f"relay: the relay at {text} is another one: it serves from "
                f"{answer['database']}; give this one a server.admin_listen of its own"
            )
    return answer


def _stranger(text: str) -> Failure:
    return Failure(
        f"relay: what listens on {text} is no relay's admin listener; choose another "
        "server.admin_listen and start the relay again"
    )


# --- showing ---


def _row(one: dict[str, Any]) -> dict[str, Any]:
    cap = f"/{one['max_concurrency']}" if one["max_concurrency"] else ""
    return {
        "name": one["name"],
        "state": _state(one),
        "why": _why(one),
        "in_flight": f"{one['in_flight']}{cap}",
        "requests": one["requests"],
        "priority": one["priority"],
        "weight": one["weight"],
        "share": f"{one['share']:.0%}" if one["answered"] else "",
        "errors": _errors(one),
        "sessions": one["sessions"],
        "limits": ", ".join(f"{row['left']:,} left of {row['limit']}" for row in one["limits"]),
        "left": "" if one["left"] is None else f"{one['left']:,}",
        "vendor": one["vendor"],
    }


def _state(one: dict[str, Any]) -> str:
    """With until when, where its end is a matter of time."""
    state, until = str(one["state"]), one["until"]
    if until is None or state in ("paused", "probing"):
        return state
    return f"{state} until {_short(until)}"


def _short(moment: str) -> str:
    """Without what is the same today: `12:01:00Z`."""
    today = clock.rfc3339(time.time())[:11]
    return moment.removeprefix(today).split(".")[0] + "Z"


def _why(one: dict[str, Any]) -> str:
    reasons = [one["why"]] if one["why"] else []
    for model, outage in one["models_out"].items():
        reasons.append(f"{model}: {outage['why']}, until {_short(outage['until'])}")
    return "; ".join(reasons)


def _errors(one: dict[str, Any]) -> str:
    parts = [f"{number} {scope}" for scope, number in sorted(one["errors"].items())]
    if one["other_model"]:
        parts.append(f"{one['other_model']} from another model")
    return ", ".join(parts)


def _terms(found: list[dict[str, Any]]) -> list[str]:
    """One line for each vendor that has something to say of its terms."""
    terms: dict[str, str] = {one["vendor"]: one["terms"] for one in found if one["terms"]}
    return [f"Terms of {vendor}: {' '.join(note.split())}" for vendor, note in terms.items()]
