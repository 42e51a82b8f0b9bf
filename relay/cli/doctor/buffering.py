"""Whether a proxy before the relay buffers: a slow stream is asked for at the public address.

The running relay gives out the stream by its admin listener (`relay.api.trickle`). Decides from the
times at which its events come. Must not know which proxy it is, but for the words of the remedy.
"""

import http.client
import time
from collections.abc import Iterator
from typing import Any, Final

from relay import config
from relay.cli.admin_client import call
from relay.cli.doctor.findings import Finding, fault, passed, warning
from relay.cli.doctor.public import connection_to
from relay.cli.program import Failure

_WHAT: Final = "buffering"
_MIN_SHARE: Final = 0.5  # of the stream's time, between its first and its last event
_REMEDIES: Final = {
    "nginx": "in its location set `proxy_buffering off;`, and do not ignore X-Accel-Buffering",
    "caddy": "in its reverse_proxy set `flush_interval -1`",
    "apache": "add `flushpackets=on` to its ProxyPass",
    "cloudflare": "use no rule that buffers or rewrites the body of answers",
}
_CUT_REMEDY: Final = "look at the log of the proxy, and raise its timeouts"
_REMEDY: Final = (
    "let the proxy pass each octet on at once (nginx: `proxy_buffering off;`, Caddy: "
    "`flush_interval -1`, Apache: `flushpackets=on`)"
)


def examine(settings: config.Settings) -> Iterator[Finding]:
    """One finding. Only where the public address was found to lead to the relay."""
    try:
        asked = call(settings, "POST", "/trickle")
    except Failure as error:
        reason = str(error).removeprefix("relay: ")
        yield warning(_WHAT, f"not tested: {reason}", "repeat this while the relay runs")
        return
    url = settings.server.public_url
    try:
        status, server, times = _times(url, asked)
    except (OSError, http.client.HTTPException) as error:
        yield fault(_WHAT, f"a slow stream from {url} failed: {error}", _CUT_REMEDY)
        return
    if status != 200:
        found = f"a slow stream from {url} got {status}"
        yield fault(_WHAT, found, "let the proxy pass every path on to this relay, unchanged")
        return
    if len(times) != asked["events"]:
        found = f"a slow stream from {url} was cut after {len(times)} of {asked['events']} events"
        yield fault(_WHAT, found, _CUT_REMEDY)
        return
    spread = times[-1] - times[0]
    if spread < asked["seconds"] * _MIN_SHARE:
        yield fault(
            _WHAT,
            f"a proxy collects streams: {len(times)} events, sent over {asked['seconds']:g} s, "
            f"came within {spread:.1f} s",
            _remedy(server),
        )
    else:
        yield passed(_WHAT, f"events of a stream come one by one, over {spread:.1f} s")


def _times(url: str, asked: Any) -> tuple[int, str, list[float]]:
    """Status, the `server` field, and when each event came. Raises OSError or HTTPException."""
    connection, prefix = connection_to(url, 10.0 + asked["seconds"])
    try:
        connection.request("POST", prefix + asked["path"], headers={"accept": "text/event-stream"})
        response = connection.getresponse()
        times = []
        while line := response.readline(100):
            if line.startswith(b": "):
                times.append(time.monotonic())
        return response.status, response.headers.get("server", ""), times
    finally:
        connection.close()


def _remedy(server: str) -> str:
    known = (remedy for name, remedy in _REMEDIES.items() if name in server.lower())
    return next(known, _REMEDY)
