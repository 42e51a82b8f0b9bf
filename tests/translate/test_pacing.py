"""Paced work gives the same parts, with a pause after every few of all its loops together."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.translate import pacing
from relay.translate.pacing import paced

FEW = 64


@given(st.lists(st.integers(0, 200), max_size=6))
def test_a_pause_comes_after_every_few_parts_of_all_loops(sizes: list[int]) -> None:
    done: list[int] = []
    pauses: list[int] = []

    def work() -> list[list[int]]:
        taken: list[list[int]] = []
        for size in sizes:
            taken.append([])
            for number in paced(range(size)):
                done.append(number)
                taken[-1].append(number)
        return taken

    def pause() -> None:
        pauses.append(len(done))

    assert pacing.run(work, pause) == [list(range(size)) for size in sizes]
    # The first one after 64 parts, the next after 65 each: the 65th part takes its turn, too.
    assert pauses == [FEW + number * (FEW + 1) for number in range(len(pauses))]
    assert sum(sizes) - (pauses[-1] if pauses else 0) <= FEW + 1


def test_other_work_is_not_paced() -> None:
    pauses: list[str] = []

    def work() -> None:
        other = threading.Thread(target=lambda: list(paced(range(1000))))
        other.start()
        other.join()

    pacing.run(work, lambda: pauses.append("pause"))
    parts = range(1000)
    assert paced(parts) is parts
    assert pauses == []


def test_work_within_work_pauses_as_it_says() -> None:
    inner: list[int] = []
    outer: list[int] = []

    def within() -> Iterator[int]:
        for number in paced(range(3 * FEW)):
            pacing.run(lambda: list(paced(range(FEW + 1))), lambda: inner.append(1))
            yield number

    assert pacing.run(lambda: list(within()), lambda: outer.append(1)) == list(range(3 * FEW))
    assert (len(inner), len(outer)) == (3 * FEW, 2)


def test_a_failure_ends_the_pacing() -> None:
    def work() -> None:
        list(paced(range(FEW + 1)))
        raise ValueError("broken")

    pauses: list[int] = []
    with pytest.raises(ValueError, match="broken"):
        pacing.run(work, lambda: pauses.append(1))
    list(paced(range(1000)))
    assert len(pauses) == 1


def test_a_pause_that_gives_up_ends_the_work() -> None:
    def give_up() -> None:
        raise TimeoutError("the caller has left")

    with pytest.raises(TimeoutError):
        pacing.run(lambda: list(paced(range(1000))), give_up)
