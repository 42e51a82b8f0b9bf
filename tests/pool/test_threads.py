"""Which upstream a thread of the Messages API goes on at."""

import json

import msgspec
import pytest

from relay.errors import RelayError
from relay.pool.routes import Route
from relay.pool.threads import HeldRoute, Threads
from tests.fakes.pool import made

ANSWER = b'{"id": "%b", "type": "message"}'
CREATE = msgspec.Raw(b'{"type":"create"}')


def on(id: str) -> msgspec.Raw:
    thread = {"type": "continue", "previous_message_id": id}
    return msgspec.Raw(json.dumps(thread).encode())


def names(route: Route) -> list[str]:
    return [target.upstream.name for target in route.targets]


def code(threads: Threads, route: Route, thread: msgspec.Raw) -> str:
    with pytest.raises(RelayError) as refused:
        threads.narrowed("ada", route, thread)
    assert refused.value.details is not None
    return refused.value.details["error_code"]


async def test_a_thread_goes_on_where_its_message_is() -> None:
    _, route = made({"a": {}, "b": {}})
    threads = Threads()
    threads.remember("ada", route.targets[1], ANSWER % b"msg_1")
    held = threads.narrowed("ada", route, on("msg_1"))
    assert isinstance(held, HeldRoute)
    assert names(held) == ["b"]
    assert code(threads, route, on("msg_2")) == "thread_not_found"


async def test_a_thread_is_another_accounts_secret() -> None:
    _, route = made({"a": {}})
    threads = Threads()
    threads.remember("bob", route.targets[0], ANSWER % b"msg_1")
    assert code(threads, route, on("msg_1")) == "thread_not_found"


async def test_a_new_thread_goes_where_threads_are_held() -> None:
    model = {
        "id": "m",
        "routes": [{"upstream": "a", "model": "glm-4"}, {"upstream": "b"}],
    }
    _, route = made({"a": {"vendor": "glm"}, "b": {}}, model)
    assert names(Threads().narrowed("ada", route, CREATE)) == ["b"]
    alone = Route(route.targets[:1])
    assert Threads().narrowed("ada", alone, CREATE) is alone
    assert code(Threads(), alone, on("msg_1")) == "thread_unsupported_request"


@pytest.mark.parametrize(
    "octets", [b"7", b'{"type":', b'{"type":"continue","previous_message_id":7}']
)
async def test_no_thread_is_left_to_the_upstream(octets: bytes) -> None:
    _, route = made({"a": {}, "b": {}})
    assert names(Threads().narrowed("ada", route, msgspec.Raw(octets))) == ["a", "b"]


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"type":"message","content":[]}'])
async def test_an_answer_without_an_id_is_not_kept(answer: bytes) -> None:
    _, route = made({"a": {}})
    threads = Threads()
    threads.remember("ada", route.targets[0], answer)
    assert len(threads) == 0


async def test_threads_are_bounded_by_account_and_in_all() -> None:
    _, route = made({"a": {}})
    threads = Threads(capacity=4, of_account=2)
    for account in ("ada", "bob", "eve"):
        for number in range(3):
            threads.remember(account, route.targets[0], ANSWER % f"msg_{number}".encode())
    assert len(threads) == 4
    held = threads.narrowed("eve", route, on("msg_2"))
    assert names(held) == ["a"]
    assert code(threads, route, on("msg_2")) == "thread_not_found"  # ada's are the oldest
