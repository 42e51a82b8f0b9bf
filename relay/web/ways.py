"""The ways to log in beside the password, and what is under way with them. `Site` makes it once."""

from typing import TYPE_CHECKING

from relay.accounts.ceremonies import Ceremonies
from relay.accounts.passkeys import Passkeys
from relay.accounts.providers import Providers
from relay.accounts.second_step import SecondStep
from relay.store.database import Database
from relay.store.identities import Identity

if TYPE_CHECKING:
    from relay.web.entry import PendingLogIn


class Ways:
    """See the module."""

    def __init__(self, database: Database) -> None:
        self.second_step = SecondStep(database)
        self.passkeys = Passkeys(database)
        self.providers = Providers(database)
        self.linking: Ceremonies[tuple[Identity, str]] = Ceremonies()
        self.pending: Ceremonies[PendingLogIn] = Ceremonies()
