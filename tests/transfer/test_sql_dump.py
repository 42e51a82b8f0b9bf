"""Dumps of SQL text, in the dialects of pg_dump, mysqldump and sqlite3."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.transfer.sql_dump import read_tables
from tests.transfer import dumps

MYSQL = """-- MySQL dump 10.13  Distrib 8.0.36
/*!40101 SET NAMES utf8mb4 */;
CREATE TABLE `tokens` (
  `id` bigint NOT NULL AUTO_INCREMENT,
  `key` char(48) DEFAULT NULL,
  `name` longtext,
  `unlimited_quota` tinyint(1) DEFAULT NULL,
  PRIMARY KEY (`id`),
  UNIQUE KEY `idx_tokens_key` (`key`),
  KEY `idx_tokens_name` (`name`(10))
) ENGINE=InnoDB AUTO_INCREMENT=3 DEFAULT CHARSET=utf8mb4;
INSERT INTO `logs` VALUES (1,'it\\'s; \\\\');
INSERT INTO `tokens` VALUES (1,'abc','it\\'s \\\\ a \\"name\\"\\n; INSERT',1),(2,NULL,'',0);
"""


def test_mysqldump_is_read() -> None:
    name = 'it\'s \\ a "name"\n; INSERT'
    assert read_tables(MYSQL.splitlines(keepends=True), ["tokens"]) == {
        "tokens": [
            {
                "id": "1",
                "key": "abc",
                "name": name,
                "unlimited_quota": "1",
            },
            {"id": "2", "key": None, "name": "", "unlimited_quota": "0"},
        ]
    }


def test_pg_dump_with_inserts_is_read() -> None:
    text = """INSERT INTO public."Users" (id, "group", note, at) VALUES
\t(1, 'a', 'semi; ''quoted''', '2026-01-01'::timestamp),
\t(-2, NULL, E'x', 3.5);
INSERT INTO public.other VALUES (1);
"""
    assert read_tables(text.splitlines(keepends=True), ["Users"]) == {
        "Users": [
            {"id": "1", "group": "a", "note": "semi; 'quoted'", "at": "2026-01-01"},
            {"id": "-2", "group": None, "note": "x", "at": "3.5"},
        ]
    }


def test_a_statement_within_a_text_is_no_statement() -> None:
    lines = dumps.NEW_API.splitlines(keepends=True)
    users = read_tables(lines, ["users"])["users"]
    assert [row["id"] for row in users] == ["1", "2", "3", "4"]
    assert users[1]["display_name"] == "Ann; it's\nINSERT INTO users VALUES (9,'x')"


def test_a_dump_of_sqlite_is_what_the_file_holds() -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(dumps.NEW_API)
        lines = [f"{line}\n" for line in connection.iterdump()]
        found = read_tables(lines, ["users", "tokens", "channels", "options"])
        for table, rows in found.items():
            stored = connection.execute(f'SELECT * FROM "{table}"').fetchall()
            texts = [tuple(None if v is None else str(v) for v in row) for row in stored]
            assert [tuple(row.values()) for row in rows] == texts


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")),
                          st.none() | st.integers(-9, 9)), min_size=1))  # fmt: skip
def test_any_text_survives(rows: list[tuple[str, int | None]]) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a TEXT, b INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        dump = "\n".join(connection.iterdump())
    lines = [f"{line}\n" for line in dump.split("\n")]
    assert read_tables(lines, ["t"])["t"] == [
        {"a": text, "b": None if number is None else str(number)} for text, number in rows
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("COPY public.t (a, b) FROM stdin;\n1\t2\n", "the rows of t do not end"),
        ("COPY public.t (a, b) FROM stdin;\n1\n\\.\n", "has 1 values for 2 columns"),
        ("INSERT INTO t VALUES (1", "a statement does not end"),
        ("INSERT INTO t VALUES (1);", "the columns of t are unknown"),
        ("INSERT INTO t (a) VALUES (1, 2);", "has 2 values for 1 columns"),
    ],
)
def test_a_damaged_dump_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_tables(text.splitlines(keepends=True), ["t"])
