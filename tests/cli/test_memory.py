"""The garbage collector of a process that serves."""

import gc
from collections.abc import Iterator

import pytest

from relay.memory import collect_later, freeze_objects


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    gc.enable()


def test_nothing_is_collected_until_the_start_is_over() -> None:
    collect_later()
    assert not gc.isenabled()
    freeze_objects()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
