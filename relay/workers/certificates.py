"""Certificates in all processes: the owner orders and renews them, workers use what it has.

While an authority may call with TLS-ALPN-01, only the owner accepts connections, since it alone has
the answer. Decides when workers look for new certificates. Must not know how they are ordered.
"""

import asyncio
import logging

from relay.app import App
from relay.net.certificate_source import CertificateSource
from relay.workers.link import Link
from relay.workers.owner import Workers

_log = logging.getLogger("relay.workers")


def share_certificates_as_owner(app: App, workers: Workers) -> None:
    """Tell workers of new certificates and of challenges. Once the owner listens."""
    certificates = app.certificates
    if certificates is None:
        return
    certificates.on_replace(lambda: workers.broadcast("certificates"))
    challenges = certificates.challenges
    if challenges is None:
        return
    accept_anew = challenges.on_change

    def on_change() -> None:
        workers.broadcast("challenge", challenges.is_pending)
        accept_anew()

    def on_joined(link: Link) -> None:
        if challenges.is_pending:
            link.send("challenge", True)

    challenges.on_change = on_change
    workers.on_joined.append(on_joined)


def share_certificates_as_worker(app: App, link: Link) -> None:
    """Use the owner's certificates."""

    def look() -> None:
        if app.certificates is not None:
            tasks.add(asyncio.get_running_loop().create_task(_look(app.certificates)))

    def challenge(is_pending: bool) -> None:
        for listener in app.server.listeners:
            if is_pending:
                listener.pause()
            elif app.server.accepts:
                listener.resume()

    tasks: set[asyncio.Task[None]] = set()
    link.on("certificates", look)
    link.on("challenge", challenge)


async def _look(certificates: CertificateSource) -> None:
    try:
        await certificates.look()
    except (OSError, ValueError) as error:
        _log.error("a worker cannot read the new certificates: %s", error)
