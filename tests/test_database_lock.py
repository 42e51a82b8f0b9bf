"""A database has one server, and its folder must exist."""

from pathlib import Path

import msgspec
import pytest

from relay import config
from relay.app import App
from tests.fakes.live import RelayWith
from tests.gateway.metering import FREE, plan


async def test_a_database_has_one_server_even_through_a_symlink(
    relay_with: RelayWith, tmp_path: Path
) -> None:
    relay = await relay_with(plan=plan(*FREE))
    settings = relay.settings
    link = tmp_path / "link.db"
    link.symlink_to(settings.database.path)
    database = msgspec.structs.replace(settings.database, path=str(link))
    server = msgspec.structs.replace(settings.server, listen=["127.0.0.1:0"])
    other = App(msgspec.structs.replace(settings, database=database, server=server))
    with pytest.raises(OSError, match="another relay serves from the database"):
        await other.start()


async def test_a_database_without_a_folder_is_refused(tmp_path: Path) -> None:
    settings = config.Settings(
        database=config.DatabaseSettings(path=str(tmp_path / "no" / "relay.db"))
    )
    with pytest.raises(OSError, match="there is no folder"):
        await App(settings).start()
