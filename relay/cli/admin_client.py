"""Calls the admin listener of the relay that serves from this relay.toml's database.

Decides how a failed call is shown. Must not know the answers.
"""

import errno
import http.client
import json
import os
import socket
from typing import Any, Final

from relay import config
from relay.cli.program import Failure

TIMEOUT_SECONDS: Final = 3.0
_LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - connected to, not bound


class Refusal(Failure):
    """The relay has answered with an error."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class _UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _connection(address: config.Address, timeout: float) -> http.client.HTTPConnection:
    if address.path is not None:
        return _UnixConnection(address.path, timeout)
    host = _LOOPBACK_OF.get(address.host, address.host)
    return http.client.HTTPConnection(host, address.port, timeout=timeout)


def call(
    settings: config.Settings,
    method: str = "GET",
    path: str = "/upstreams",
    timeout: float = TIMEOUT_SECONDS,
) -> Any:
    """Call the admin listener; returns the decoded JSON of its answer, or the text of metrics.

    Raises:
        Refusal: it refuses.
        Failure: no relay answers, or it is another one.
    """
    from relay.api.admin import PROOF, identity, proof
    from relay.api.admin_token import token_path

    text = settings.admin_address
    if not text:
        raise _no_listener_error()
    connection = _connection(text, timeout)
    headers = _token_fields(settings) if text.path is None else {}
    if method == "POST":
        headers[PROOF] = proof(settings.database.path)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        status, octets = response.status, response.read()
        is_text = status == 200 and path == "/metrics"
        answer: Any = octets.decode() if is_text else json.loads(octets)
    except TimeoutError:
        raise Failure(
            f"relay: the relay at {text} does not answer within {timeout:.0f} s; see its log"
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
        raise Refusal(f"relay: {message}", status)
    if method == "GET" and not is_text:
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


def _no_listener_error() -> Failure:
    return Failure(
        "relay: server.admin_listen is empty, so no relay can be asked; set it and start the "
        "relay again"
    )


def _not_a_relay_error(text: str) -> Failure:
    return Failure(
        f"relay: the server at {text} is no relay's admin listener; choose another "
        "server.admin_listen and start the relay again"
    )
