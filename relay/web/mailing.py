"""Mails to people: written in their language, sent beside the page that asks for one.

Decides how many mails may be on their way. A page answers before its mail is sent, so that its time
says nothing about whom it is for. Must not know what they say.
"""

import asyncio
import logging
from email.message import EmailMessage
from typing import Final

from relay.alerts.mail_server import DeliveryError, letter, send_message
from relay.config import Settings
from relay.net.off_loop import off_loop

_MAX_ON_THEIR_WAY: Final = 8

_log = logging.getLogger("relay.web")


class Mailing:
    """Sends mails by the server of `[mail]`."""

    def __init__(self) -> None:
        self._sending: set[asyncio.Task[None]] = set()

    def post(self, settings: Settings, to: str, subject: str, text: str) -> bool:
        """Send a mail soon; False if too many are on their way."""
        if len(self._sending) >= _MAX_ON_THEIR_WAY:
            return False
        message = letter(settings.web.name, settings.mail.sender, to, subject, text)
        task = asyncio.get_running_loop().create_task(self._send(settings, message))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        return True

    async def _send(self, settings: Settings, message: EmailMessage) -> None:
        try:
            await off_loop("mail", lambda: send_message(settings.mail, message))
        except DeliveryError as error:
            _log.warning("a mail to a person was not sent: %s", error)
