"""Logging in, and what an attacker learns from it."""

import asyncio
import time

import pytest

from relay.accounts.passwords import (
    THREADS,
    HashingBusyError,
    Passwords,
    WeakPasswordError,
    check_strength,
)
from relay.accounts.throttle import Throttle, address_name
from tests.fakes.live import EMAIL, RelayWith
from tests.web.conftest import NewVisitor
from tests.web.visitor import PASSWORD, WEB, Visitor


async def test_an_unknown_address_looks_like_a_wrong_password(visitor: Visitor) -> None:
    await visitor.sign_up()
    visitor.cookies.clear()
    wrong = await visitor.log_in(password="wrong password")
    unknown = await visitor.log_in("nobody@example.com")
    without = await visitor.log_in(EMAIL)  # made on the command line, without a password
    assert [one.status_code for one in (wrong, unknown, without)] == [401] * 3
    texts = {
        one.text.replace(email, "")
        for one, email in (
            (wrong, "grace@example.com"), (unknown, "nobody@example.com"), (without, EMAIL),
        )
    }  # fmt: skip
    assert len(texts) == 1


@pytest.mark.alone
@pytest.mark.alone
async def test_an_unknown_address_takes_as_long_as_a_known_one(
    relay_with: RelayWith, another: NewVisitor
) -> None:
    live = await relay_with(web={**WEB, "log_ins_per_account": 1000})
    visitor = another(live)
    await visitor.sign_up()
    visitor.cookies.clear()

    async def seconds(email: str) -> float:
        started = time.perf_counter()
        values = {"email": email, "password": "wrong password"}
        assert (await visitor.post("/login", data=values)).status_code == 401
        return time.perf_counter() - started

    await seconds("warm@example.com")
    known, unknown = [], []
    for _ in range(15):
        known.append(await seconds("grace@example.com"))
        unknown.append(await seconds("nobody@example.com"))
    ratio = min(unknown) / min(known)  # others on the machine only add to it
    assert 0.9 < ratio < 1.1, ratio


async def test_tries_are_limited_for_an_account(visitor: Visitor, another: NewVisitor) -> None:
    await visitor.sign_up()
    visitor.cookies.clear()
    for _ in range(5):
        assert (await visitor.log_in(password="wrong password")).status_code == 401
    answer = await visitor.log_in("GRACE@example.com")
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0
    assert "too many tries" in answer.text


async def test_tries_are_limited_for_an_address(relay_with: RelayWith, another: NewVisitor) -> None:
    live = await relay_with(web={**WEB, "log_ins_per_address": 3})
    visitor = another(live)
    statuses = [(await visitor.log_in(f"a{n}@example.com")).status_code for n in range(4)]
    assert statuses == [401, 401, 401, 429]


async def test_a_right_password_clears_earlier_tries(visitor: Visitor) -> None:
    await visitor.sign_up()
    for _ in range(2):
        visitor.cookies.clear()
        for _ in range(4):
            await visitor.log_in(password="wrong password")
        assert (await visitor.log_in()).status_code == 303


def test_a_throttle_is_bounded_and_refills() -> None:
    throttle = Throttle(2)
    assert [throttle.wait("a", 0.0) for _ in range(3)] == [0, 0, 30]
    assert throttle.wait("a", 31.0) == 0
    for number in range(25_000):
        throttle.wait(str(number), 31.0)
    assert len(throttle._buckets) == 20_000
    assert address_name("2001:db8::1") == address_name("2001:db8::ffff")
    assert address_name("2001:db8:0:1::1") != address_name("2001:db8::1")
    assert address_name("::ffff:192.0.2.1") == address_name("192.0.2.1")


async def test_a_full_queue_of_hashes_refuses_at_once() -> None:
    passwords = Passwords(most_waiting=1)
    tasks = [asyncio.ensure_future(passwords.hash(PASSWORD)) for _ in range(1 + THREADS)]
    await asyncio.sleep(0)
    with pytest.raises(HashingBusyError):
        await passwords.hash(PASSWORD)
    hashes = await asyncio.gather(*tasks)
    assert await passwords.verify(hashes[0], PASSWORD)
    assert not await passwords.verify(hashes[0], PASSWORD + "x")
    assert not await passwords.verify(None, PASSWORD)
    assert not await passwords.verify("no hash", PASSWORD)


def test_strength_counts_characters_not_classes() -> None:
    check_strength("correct horse", "a@example.com")
    check_strength("十个汉字就可以当密码", "a@example.com")
    for weak in ("123456789", "1212121212", "A@EXAMPLE.COM", "x" * 201):
        with pytest.raises(WeakPasswordError):
            check_strength(weak, "a@example.com")


async def test_one_network_leaves_room_to_the_others() -> None:
    passwords = Passwords(most_waiting=8, most_of_network=2)
    results = await asyncio.gather(
        *(passwords.verify(None, "x", "192.0.2.1") for _ in range(6)),
        *(passwords.verify(None, "x", "192.0.2.2") for _ in range(2)),
        return_exceptions=True,
    )
    assert [isinstance(one, HashingBusyError) for one in results] == [
        False, False, True, True, True, True, False, False,
    ]  # fmt: skip
    assert await passwords.verify(None, "x", "192.0.2.1") is False  # none of them waits any more
