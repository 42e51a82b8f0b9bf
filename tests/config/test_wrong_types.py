"""A setting with a value of another type is named as people write it, with what it must be."""

import datetime
import re
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest

from relay import config
from relay.config.schema import Settings
from relay.web.reasons import in_language, translated

Path = tuple[str | int, ...]
UPSTREAM = {"name": "a", "api_key": "env:KEY", "base_url": "https://a.example"}
# Of a setting's name and its default: a URL, a duration, a date, or an address with a port.
FORM = re.compile(r"url|endpoint|issuer|smtp|sender|listen|://| \d+[smhd]$| \d{4}-\d\d|:\d+$")
DAY = datetime.date(2026, 1, 1)
WRONG: list[tuple[Any, set[type]]] = [  # a value, and the types that take it
    ("some text", {str}),
    (5, {int, float}),
    (1.5, {float}),
    (True, {bool}),
    (["a"], {list}),
    ({"a": 1}, {dict}),
    (DAY, set()),
]


def parts(kind: Any) -> list[Any]:
    """The types that a union accepts, without None."""
    if get_origin(kind) is Annotated:
        return parts(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in parts(part)]
    return [] if kind in (type(None), msgspec.UnsetType) else [kind]


def settings(kind: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every setting below a type, sections among them: its place, and its type."""
    for part in parts(kind):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            for field in msgspec.structs.fields(part):
                yield (*path, field.encode_name), field.type
                yield from settings(field.type, (*path, field.encode_name))
        elif get_origin(part) is list:
            yield (*path, 0), get_args(part)[0]
            yield from settings(get_args(part)[0], (*path, 0))
        elif get_origin(part) is dict:
            yield (*path, "some-name"), get_args(part)[1]
            yield from settings(get_args(part)[1], (*path, "some-name"))


def accepted(kind: Any) -> set[type]:
    """The types of values in TOML that may stand there."""
    found: set[type] = set()
    for part in parts(kind):
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            found.add(dict)
        elif get_origin(part) in (list, dict):
            found.add(get_origin(part))
        elif get_origin(part) is not Literal:  # of which no text here is one
            found.add(next(one for one in (bool, int, float, str) if issubclass(part, one)))
    return found


def tree(path: Path, value: Any) -> Any:
    """A document with one value."""
    for step in reversed(path):
        value = [value] if step == 0 else {step: value}
    return value


def dotted(path: Path) -> str:
    return "".join("[0]" if step == 0 else f".{step}" for step in path).lstrip(".")


def wrong_values() -> Iterator[tuple[Path, Any, str]]:
    """Each setting with each value of another type: also the message for it."""
    for path, kind in settings(Settings):
        for value, fitting in WRONG:
            if accepted(kind) & fitting:
                continue
            with pytest.raises(config.ConfigError) as error:
                config.parse(tree(path, value))
            yield path, value, str(error.value)


def test_every_wrong_type_names_its_setting() -> None:
    messages = list(wrong_values())
    assert len(messages) > 500
    for path, value, message in messages:
        assert message.startswith(f"{dotted(path)}: must be "), (path, value, message)
        assert "$" not in message
        assert "`" not in message
        assert "see relay.toml" not in message
        assert translated(message, "zh"), message
        assert "“" not in in_language(message, "zh"), message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"server": {"workers": "two"}},
         'server.workers: must be a whole number from 1 to 256 or "auto", not "two"'),
        ({"server": {"workers": 0}},
         'server.workers: must be a whole number from 1 to 256 or "auto", not 0'),
        ({"ledger": {"url": 5}},
         'ledger.url: must be a URL in quotes, such as "postgresql://relay@db.example/relay", '
         "not 5"),
        ({"ledger": {"on_outage": "x"}}, 'ledger.on_outage: must be "refuse" or "local", not "x"'),
        ({"plan": [{"id": "a", "limits": [{"requests": "many", "per": "5h"}]}]},
         'plan[0].limits[0].requests: must be a whole number, not "many"'),
        ({"traces": {"headers": {"a": "x", "b c": 5}}},
         'traces.headers."b c": must be text in quotes, not 5'),
        ({"upstream": [{"headers": "x-api-key: sk-canary"}]},
         "upstream[0].headers: must be a table { … }, not text"),
        ({"upstream": [{"auth": "sk-" + "canary" * 20}]},
         'upstream[0].auth: must be "x-api-key" or "bearer", not text'),
        ({"mail": {"password": 123456}}, "mail.password: must be text in quotes, not a number"),
        ({"upstream": [{"headers": {"x-api-key": 5}}]},
         "upstream[0].headers.x-api-key: must be text in quotes, not a number"),
        ({"log": {"access": DAY}}, "log.access: must be true or false, not a date or a time"),
        ({"pool": {"tries": 1.5}}, "pool.tries: must be a whole number, not 1.5"),
        ({"pool": {"sticky": 300}},
         'pool.sticky: must be a duration in quotes, such as "5m" or "off", not 300'),
        ({"server": {"listen": [8080]}},
         'server.listen[0]: must be an address in quotes, such as "127.0.0.1:8080", not 8080'),
        ({"server": {"tls": "yes"}},
         'server.tls: must be a table { … } or a list [ … ] or "auto", not "yes"'),
        ({"server": {"limits": {"body": "32MB"}}},
         'server.limits.body: must be a whole number of octets, not "32MB"'),
        ({"upstream": {"name": "a"}},
         "upstream: must be a list of tables, written [[upstream]] or [{ … }], not a table"),
        ({"server": {"limits": [{"body": 1}]}},
         "server.limits: must be a table, written [server.limits] or { … }, not a list"),
        ({"pool": {"tries": 9}}, "pool.tries: must be from 1 to 5, not 9"),
        ({"plan": [{"id": "a", "max_keys": 0}]}, "plan[0].max_keys: must be at least 1, not 0"),
        ({"backup": {"every": "5s"}},
         'backup.every: must be at least "1m", or "off", not "5s"'),
        ({"alerting": {"plan": {"a": -1}}}, "alerting.plan: a must be 0 or more, not -1"),
        ({"model": [{"id": "a", "created": "20.5.2026"}]},
         'model[0].created: must be a date such as 2026-01-31, not "20.5.2026"'),
        ({"database": {"path": ""}},
         'database.path: must be a file: keys have to survive a restart; it is ""'),
        ({"server": {"public_url": "http://a.example:99999"}},
         "server.public_url: has a host or port that cannot be read; it is "
         '"http://a.example:99999"'),
        ({"upstream": [{**UPSTREAM, "base_url": "a.example"}]},
         "upstream[0].base_url: must begin with http:// or https:// and name a host, "
         'not "a.example"'),
        ({"web": {"session_limit": "1h"}},  # the default of the other setting is longer
         "web.session_idle: must not be longer than session_limit"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_shown_unless_it_may_be_a_secret(
    text: dict[str, Any], message: str
) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.parse(text)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "tree",
    [
        {"upstream": [{**UPSTREAM, "base_url": "https://u:canary@a.example"}]},
        {"upstream": [{**UPSTREAM, "base_url": "https://a.example?token=canary"}]},
        {"upstream": [{**UPSTREAM, "base_url": "u:canary@a.example"}]},
        {"upstream": [{**UPSTREAM, "base_url": "canary" * 20}]},
        {"upstream": [{**UPSTREAM, "egress": "u:canary"}]},
        {"ledger": {"url": "canary"}},
        {"alert": [{"name": "a", "kind": "slack", "url": "a.example/canary"}]},
        {"mail": {"sender": "a@b.c", "smtp": "u:canary@b.c"}},
        {"server": {"key_prefix": "canary?"}},
    ],
)
def test_a_text_that_may_be_a_secret_is_not_shown(tree: dict[str, Any]) -> None:
    with pytest.raises(config.ConfigError) as error:
        config.parse(tree)
    assert "must " in str(error.value) or "takes " in str(error.value)
    assert "canary" not in str(error.value)


def test_a_text_with_a_form_is_asked_for_with_it() -> None:
    """Durations, addresses, URLs and the like, as their names or their defaults tell."""
    asked = {path: text for path, value, text in wrong_values() if value is DAY}
    formed = [path for path, field in fields() if FORM.search(f"{path[-1]} {field.default}")]
    formed = [path for path in formed if "in quotes" in asked[path]]
    assert len(formed) > 15
    assert [asked[path] for path in formed if "in quotes, such as " not in asked[path]] == []


def fields() -> Iterator[tuple[Path, msgspec.structs.FieldInfo]]:
    """Every setting that has a name, and what its section says of it."""
    sections: list[tuple[Path, Any]] = [((), Settings), *settings(Settings)]
    for path, kind in sections:
        for part in parts(kind):
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                for field in msgspec.structs.fields(part):
                    yield (*path, field.encode_name), field
