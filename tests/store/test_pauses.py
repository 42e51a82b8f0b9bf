from relay.store import pauses
from relay.store.database import Database
from relay.store.server_secret import sealing_key


async def test_a_pause_is_kept_from_its_first_time_until_resumed(database: Database) -> None:
    assert await pauses.paused(database) == {}
    for moment in (5.0, 6.0):
        await pauses.pause(database, "main", moment)
    await pauses.pause(database, "backup", 7.0)
    assert await pauses.paused(database) == {"backup": 7.0, "main": 5.0}
    await pauses.resume(database, "main")
    await pauses.resume(database, "no such upstream")
    assert await pauses.paused(database) == {"backup": 7.0}


async def test_the_servers_secret_never_changes(database: Database) -> None:
    key = await sealing_key(database)
    assert len(key) == 32
    assert await sealing_key(database) == key
