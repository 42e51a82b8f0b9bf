"""The table of clients is the one that the kept rows make."""

import pytest

from tests.clients.matrix.table import (
    BEGIN,
    CELLS,
    END,
    PAGE,
    ROWS,
    Row,
    leave,
    read,
    render,
    replaced,
)

GOOD = dict.fromkeys(CELLS, "✓")


def test_the_page_has_the_table_of_the_kept_rows() -> None:
    page = PAGE.read_text()
    assert page == replaced(page, render(read()))


def test_a_reason_is_written_once_below_the_table() -> None:
    lacking = {**GOOD, "loop": "– it has no tools", "parallel": "– it has no tools"}
    table = render([Row("Some", "some 1.0", "chat", lacking)])
    assert "| Some | some 1.0 | chat | ✓ | ✓ | – 1 | – 1 | ✓ |" in table
    assert table.endswith("\n\n1. it has no tools")


def test_a_page_keeps_everything_around_the_table() -> None:
    page = replaced(f"a\n{BEGIN}\nold\n{END}\nz\n", "new")
    assert page == f"a\n{BEGIN}\nnew\n{END}\nz\n"


@pytest.mark.parametrize(
    "cells", [{"plain": "✓"}, {**GOOD, "plain": "✗"}, {**GOOD, "plain": "yes"}]
)
def test_a_row_has_every_cell_and_a_reason_for_a_gap(cells: dict[str, str]) -> None:
    with pytest.raises(AssertionError):
        leave(Row("Some", "some 1.0", "chat", cells))


def test_a_row_that_a_run_leaves_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    monkeypatch.setenv("RELAY_CLIENT_ROWS", str(folder))
    row = Row("Some (JS)", "some 1.0", "chat", GOOD)
    leave(row)
    assert [path.name for path in folder.iterdir()] == ["some-js-chat.json"]
    assert read(folder) == [row]
    assert ROWS.is_dir()
