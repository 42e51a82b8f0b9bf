"""Requests to an authority that refuses nonces, and its wish for patience.

Decides how often a request is sent again. Must not know what is asked for.
"""

import contextlib
import time
from typing import Any, Final

import requests
from acme import client, errors, messages
from josepy import json_util, jwa, jwk

from relay import __version__
from relay.net.acme.schedule import retry_after_seconds

_ANSWER_TIMEOUT_SECONDS: Final = 20
_MAX_NONCES: Final = 6  # an authority of several machines may refuse some in a row


class _Replacement(messages.NewOrder):
    """An order with the field of RFC 9773 §5, which the library does not know."""

    replaces: str = json_util.field("replaces", omitempty=True)


class Network(client.ClientNetwork):
    """The library's, for one order. `ca` is the path of a file; None: the usual authorities."""

    def __init__(self, key: jwk.JWK | None, ca: str | None) -> None:
        super().__init__(
            key,
            alg=jwa.ES256,
            user_agent=f"relay/{__version__}",
            timeout=_ANSWER_TIMEOUT_SECONDS,
        )
        self.replaces = ""  # the certificate that the next orders are to replace, by its id
        self.retry_after: float | None = None  # seconds, of the last answer if that was an error
        if ca is not None:  # as `requests` takes it
            self.verify_ssl = ca  # type: ignore[assignment]  # declared as bool
        self.session.trust_env = False  # no proxy and no .netrc of the environment
        self.session.hooks["response"].append(self._on_response)

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request, again while its nonce is refused (RFC 8555 §6.5)."""
        if self.replaces and isinstance(args[1], messages.NewOrder):
            order = args[1]
            known = {"identifiers": order.identifiers, "profile": order.profile}
            args = (args[0], _Replacement(replaces=self.replaces, **known), *args[2:])
        for _ in range(_MAX_NONCES - 1):
            try:
                return self._post_once(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return self._post_once(*args, **kwargs)

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        return super()._send_request(method, url, *args, allow_redirects=False, **kwargs)

    def _on_response(self, response: requests.Response, *_: object, **__: object) -> None:
        field = "" if response.ok else response.headers.get("retry-after", "")
        self.retry_after = retry_after_seconds(field, time.time())
        if not response.ok and self.REPLAY_NONCE_HEADER in response.headers:
            with contextlib.suppress(errors.BadNonce):
                self._nonces.clear()
                self._add_nonce(response)  # the library keeps those of successes only
