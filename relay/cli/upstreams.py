"""`relay upstreams`: the state of a running relay's upstreams; pausing and resuming them.

Decides how the admin listener is called and how its answers are shown. Acts only on the relay
that serves from this relay.toml's database. Must not know how upstreams are chosen.
"""

import errno
import http.client
import json
import os
import socket
import time
from typing import Any, Final
from urllib.parse import quote

import click

from relay import clock, config
from relay.cli.output import print_json, print_records
from relay.cli.program import Failure, config_option, json_option, load_settings

_TIMEOUT_SECONDS: Final = 3.0
_JSON_FLAG: Final = "relay.cli.upstreams.json"
_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - connected to, not bound


@click.group(invoke_without_command=True)
@config_option
@json_option
@click.pass_context
def upstreams(context: click.Context, as_json: bool) -> None:
    """Upstreams of the running relay: their state at this moment."""
    context.meta[_JSON_FLAG] = as_json  # `--json` may stand before the subcommand, too
    if context.invoked_subcommand is not None:
        return
    found = _call(load_settings())
    if as_json:
        print_json(found)
        return
    rows = [_row(one) for one in found["upstreams"]]
    # Columns without any value are left out, for width.
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
@config_option
@json_option
def upstreams_pause(name: str, as_json: bool) -> None:
    """Give the upstream NAME no more requests, until resumed, over restarts too."""
    upstream = _act(name, "pause")
    in_flight = upstream["in_flight"]
    remaining = f" Requests still in flight: {in_flight}." if in_flight else ""
    _print_upstream(upstream, as_json, f"{name} is paused.{remaining}")


@upstreams.command("resume")
@click.argument("name")
@config_option
@json_option
def upstreams_resume(name: str, as_json: bool) -> None:
    """Give the upstream NAME requests again."""
    upstream = _act(name, "resume")
    is_ok = upstream["state"] == "ok"
    state = "" if is_ok else f" It is {_state(upstream)}: {upstream['why']}."
    _print_upstream(upstream, as_json, f"{name} is resumed.{state}")


@upstreams.command("clear")
@click.argument("name")
@config_option
@json_option
def upstreams_clear(name: str, as_json: bool) -> None:
    """Forget the outages of the upstream NAME, and try it again at once."""
    upstream = _act(name, "clear")
    pause = " It stays paused." if upstream["state"] == "paused" else ""
    _print_upstream(
        upstream, as_json, f"{name} may serve again; its earlier errors stay counted.{pause}"
    )


def _print_upstream(upstream: dict[str, Any], as_json: bool, sentence: str) -> None:
    """Print an upstream after a change: as JSON, or the sentence that describes the change."""
    if as_json or click.get_current_context().meta[_JSON_FLAG]:
        print_json(upstream)
    else:
        click.echo(sentence)


# --- calling the admin listener ---


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)


def _connection(address: config.Address) -> http.client.HTTPConnection:
    if address.path is not None:
        return _UnixConnection(address.path)
    host = _LOOPBACK_OF.get(address.host, address.host)
    return http.client.HTTPConnection(host, address.port, timeout=_TIMEOUT_SECONDS)


def _act(name: str, action: str) -> dict[str, Any]:
    """Apply an action to an upstream of the running relay; returns the upstream afterwards."""
    settings = load_settings()
    _call(settings)  # fails with a clear message if another relay listens there
    path = f"/upstreams/{quote(name, safe='')}/{action}"
    upstream: dict[str, Any] = _call(settings, "POST", path)
    return upstream


def _call(settings: config.Settings, method: str = "GET", path: str = "/upstreams") -> Any:
    """Call the admin listener; returns the decoded JSON of its answer.

    Raises:
        Failure: no relay answers, it is another one, or it refuses.
    """
    from relay.api.admin import PROOF, identity, proof
    from relay.api.admin_token import token_path

    text = settings.admin_address
    if not text:
        raise Failure(
            "relay: server.admin_listen is empty, so no relay can be asked; set it and "
            "start the relay again"
        )
    connection = _connection(text)
    headers = _token_fields(settings) if text.path is None else {}
    if method == "POST":
        headers[PROOF] = proof(settings.database.path)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        status, answer = response.status, json.loads(response.read())
    except TimeoutError:
        raise Failure(
            f"relay: the relay at {text} does not answer within {_TIMEOUT_SECONDS:.0f} s; "
            "see its log"
        ) from None
    except OSError as error:
        number = error.errno or 0
        why = os.strerror(number) if number > 0 else error.strerror or str(error)
        advice = (
            "start it with `relay serve`, or check that it was started with this "
            "server.admin_listen"
        )
        if number == errno.EACCES:
            advice = "run this as the user that runs the relay"
        raise Failure(f"relay: no relay can be asked at {text} ({why}); {advice}") from None
    except (http.client.HTTPException, ValueError):
        raise _not_a_relay_error(text) from None
    finally:
        connection.close()
    if status == 401 and text.path is None:
        raise Failure(
            f"relay: the relay at {text} is another one: it does not accept the token in "
            f"{token_path(settings.database.path)}"
        )
    if status != 200:
        try:
            message = str(answer["error"]["message"])
        except (KeyError, TypeError):
            raise _not_a_relay_error(text) from None
        raise Failure(f"relay: {message}")
    if method == "GET":
        _check_identity(answer, identity(settings.database.path), text)
    return answer


def _token_fields(settings: config.Settings) -> dict[str, str]:
    """The header field for a listener on TCP. Raises Failure: the token cannot be read."""
    from relay.api.admin_token import read_token, token_path

    try:
        token = read_token(settings.database.path)
    except OSError as error:
        raise Failure(
            f"relay: {token_path(settings.database.path)} cannot be read ({error.strerror}); "
            "run this as the user that runs the relay"
        ) from None
    return {} if token is None else {"authorization": f"Bearer {token}"}


def _check_identity(answer: Any, expected: str, text: str) -> None:
    """Raises Failure: the answer is not from the relay that serves from this database."""
    if not isinstance(answer, dict) or "database" not in answer:
        raise _not_a_relay_error(text)
    if answer["database"] != expected:
        raise Failure(
            f"relay: the relay at {text} is another one: it serves from "
            f"{answer['database']}; give this one a server.admin_listen of its own"
        )


def _not_a_relay_error(text: str) -> Failure:
    return Failure(
        f"relay: the server at {text} is no relay's admin listener; choose another "
        "server.admin_listen and start the relay again"
    )


# --- showing ---


def _row(one: dict[str, Any]) -> dict[str, Any]:
    limit = f"/{one['max_concurrency']}" if one["max_concurrency"] else ""
    return {
        "name": one["name"],
        "state": _state(one),
        "why": _why(one),
        "in_flight": f"{one['in_flight']}{limit}",
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
    """The state, and until when if it ends by itself."""
    state, until = str(one["state"]), one["until"]
    if until is None or state in ("paused", "probing"):
        return state
    return f"{state} until {_short_time(until)}"


def _short_time(timestamp: str) -> str:
    """RFC 3339 without fractions, and without the date if it is today's: `12:01:00Z`."""
    today = clock.rfc3339(time.time())[:11]
    return timestamp.removeprefix(today).split(".")[0] + "Z"


def _why(one: dict[str, Any]) -> str:
    reasons = [one["why"]] if one["why"] else []
    for model, outage in one["models_out"].items():
        reasons.append(f"{model}: {outage['why']}, until {_short_time(outage['until'])}")
    return "; ".join(reasons)


def _errors(one: dict[str, Any]) -> str:
    parts = [f"{number} {scope}" for scope, number in sorted(one["errors"].items())]
    if one["other_model"]:
        parts.append(f"{one['other_model']} from another model")
    return ", ".join(parts)


def _terms(found: list[dict[str, Any]]) -> list[str]:
    """One line for each vendor with terms of use."""
    terms: dict[str, str] = {one["vendor"]: one["terms"] for one in found if one["terms"]}
    return [f"Terms of {vendor}: {' '.join(note.split())}" for vendor, note in terms.items()]
