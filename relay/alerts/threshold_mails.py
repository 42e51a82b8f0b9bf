"""Mails to people whose use passes a threshold of theirs: once for each window and threshold.

Decides when thresholds are looked at, which of several that were passed at once is named, and what
happens while the mail server fails. A mail is noted as sent before it goes, so that no crash sends
it twice; the note is taken back where the server did not take the mail. Must not know words or SQL.
"""

import asyncio
import itertools
import logging
import time
from typing import Final

from relay.accounts import AccountError, users
from relay.accounts.windows import limits_of
from relay.alerts.mail_server import DeliveryError, letter, send_message
from relay.alerts.threshold_texts import words
from relay.config import Settings
from relay.net.off_loop import off_loop
from relay.store import thresholds
from relay.store.database import Database, StoreError
from relay.store.thresholds import Crossing

_INTERVAL_SECONDS = 30.0  # a look at 10,000 people takes 65 ms, on the database's thread
_LONGEST_PAUSE_SECONDS: Final = 900.0  # while the mail server fails, or does for one address
_MAX_POSTPONED: Final = 1_000  # addresses

_log = logging.getLogger("relay.alerts")


class ThresholdMails:
    """See the module. Does nothing without `[mail]`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._postponed: dict[str, float] = {}  # addresses refused for now, and until when

    async def run(self) -> None:
        """Watch until cancelled."""
        if not self._settings.mail.smtp:
            return
        pause = _INTERVAL_SECONDS
        while True:
            try:
                await thresholds.rearm_balances(self._database)
                await self.send_due(time.time())
            except StoreError as error:
                _log.warning("mails about thresholds wait: %s", error)
                pause = _INTERVAL_SECONDS
            except DeliveryError as error:
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                _log.warning("mails about thresholds wait for %.0f s: %s", pause, error)
            else:
                pause = _INTERVAL_SECONDS
            await asyncio.sleep(pause)

    async def send_due(self, now: float) -> None:
        """Send a mail for everything that has passed a threshold.

        Raises:
            DeliveryError: the server does not take mails at present; the rest is due still.
            StoreError: SQLite failed.
        """
        found = await thresholds.crossed(self._database, now)
        for _, group in itertools.groupby(found, lambda one: (one.user_id, one.about)):
            passed = list(group)
            if now < self._postponed.get(passed[0].email, 0):
                continue
            claimed = await thresholds.claim(self._database, passed)
            claimed = [one for one in claimed if self._is_in_force(one, now)]
            if claimed:
                await self._send(claimed, now)

    async def _send(self, passed: list[Crossing], now: float) -> None:
        """Send one mail, about the highest of the thresholds that a limit has passed."""
        settings, one = self._settings, passed[-1]
        subject, text = words(one, settings.web.name, settings.server.public_url)
        message = letter(settings.web.name, settings.mail.sender, one.email, subject, text)
        try:
            await off_loop("mail", lambda: send_message(settings.mail, message))
        except DeliveryError as error:
            if error.final:  # this address, or this mail: another try would fail, too
                _log.warning("a mail about a threshold was not sent: %s", error)
                return
            await thresholds.release(self._database, passed)
            if not error.of_recipient:
                raise
            if len(self._postponed) >= _MAX_POSTPONED:
                self._postponed.clear()
            self._postponed[one.email] = now + _LONGEST_PAUSE_SECONDS
            _log.warning("a mail about a threshold waits: %s", error)

    def _is_in_force(self, one: Crossing, now: float) -> bool:
        """Whether there is such a limit still. What was used of one that has gone is kept on disk
        until its window ends."""
        if one.scope == "own":
            return any(
                (limit.counts, limit.per) == (one.kind, one.per) for limit in one.limits_of_key
            )
        if one.scope not in ("account", "key"):
            return True
        try:
            plan = users.plan_of(self._settings, one.plan_at(now))
            limits = limits_of(plan)
        except AccountError:
            return False
        of_account = plan.enforce == "account"
        return of_account == (one.scope == "account") and any(
            (limit.kind, limit.per) == (one.kind, one.per) for limit in limits
        )
