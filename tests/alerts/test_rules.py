"""Which change of state gives an alert: transcripts of states, second by second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.alerts.rules import Alert, Condition, Tracker

STATES = {"!": True, ".": False, "?": None}


def transcript(states: str, *, hold: float = 0, clear: float = 0) -> str:
    """One character a second: `!` bad, `.` good, `?` unknown, `_` not there any more.

    Returns a line of the same length: `F` where an alert fires, `R` where it is resolved.
    """
    tracker = Tracker()
    result = []
    for second, state in enumerate(states):
        conditions = []
        if state != "_":
            bad = STATES[state]
            conditions.append(Condition("upstream", "a", bad, f"at {second}", hold, clear))
        alerts = tracker.update(float(second), conditions)
        assert len(alerts) <= 1
        result.append({"firing": "F", "resolved": "R"}[alerts[0].state] if alerts else " ")
    return "".join(result)


@pytest.mark.parametrize(
    ("states", "hold", "clear", "alerts"),
    [
        pytest.param("....", 0, 0, "    ", id="all is well"),
        pytest.param("!!!!", 0, 0, "F   ", id="one alert for one fault"),
        pytest.param("!!..", 0, 0, "F R ", id="and one for its end"),
        pytest.param("!!!!!!", 3, 0, "   F  ", id="only once it has lasted"),
        pytest.param("!!.!!.!!.", 3, 0, "         ", id="short faults do not add up"),
        pytest.param("!....!", 0, 3, "F   RF", id="a new fault after the end"),
        pytest.param("!.!.!.!....", 0, 3, "F         R", id="a fault that flaps is one fault"),
        pytest.param("!??!", 3, 0, "   F", id="unknown states do not end a fault"),
        pytest.param("!!??..", 0, 0, "F   R ", id="unknown states do not resolve one"),
        pytest.param("!.??.", 0, 3, "F   R", id="unknown states do not begin one anew"),
        pytest.param("????", 0, 0, "    ", id="unknown from the start"),
        pytest.param("!!_..", 0, 0, "F    ", id="a removed subject is forgotten"),
        pytest.param("!!_!!", 0, 0, "F  F ", id="and may come back"),
    ],
)  # fmt: skip
def test_a_transcript_of_states_gives_these_alerts(
    states: str, hold: float, clear: float, alerts: str
) -> None:
    assert transcript(states, hold=hold, clear=clear) == alerts


@given(st.text("!.?_", max_size=60), st.integers(0, 5), st.integers(0, 5))
def test_alerts_alternate_and_never_outnumber_changes(states: str, hold: int, clear: int) -> None:
    line = transcript(states, hold=hold, clear=clear)
    marks = line.replace(" ", "")
    if "_" not in states:
        assert "FF" not in marks
        assert "RR" not in marks
    assert not marks.startswith("R")
    for second, mark in enumerate(line):
        if mark == "F":
            assert states[second] == "!"
            assert "." not in states[max(0, second - hold) : second + 1]
        if mark == "R":
            assert states[second] == "."
            assert "!" not in states[max(0, second - clear) : second + 1]


def test_subjects_and_events_are_apart() -> None:
    tracker = Tracker()
    down = [Condition("upstream", "a", True, "x"), Condition("upstream", "b", True, "y"),
            Condition("cooling", "a", False)]  # fmt: skip
    fired = tracker.update(10.0, down)
    assert fired == [
        Alert("upstream", "a", "firing", "x", 10.0, 10.0),
        Alert("upstream", "b", "firing", "y", 10.0, 10.0),
    ]
    assert tracker.firing == 2
    better = [Condition("upstream", "a", False), Condition("upstream", "b", True, "z")]
    assert tracker.update(20.0, better) == [Alert("upstream", "a", "resolved", "x", 10.0, 20.0)]


def test_a_long_text_is_cut() -> None:
    [alert] = Tracker().update(0.0, [Condition("disk", "d", True, "x" * 5000)])
    assert len(alert.text) == 500
