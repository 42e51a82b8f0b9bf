"""One key may have 64 request bodies on their way, over both protocols together."""

import json

import pytest
from hyperframe.frame import DataFrame

from tests.attacks.uploads import PATHS, head, other_key, served, several
from tests.fakes.caller import read_answer
from tests.fakes.http2 import body, http2_caller, post
from tests.fakes.live import Live
from tests.fakes.until import until

EACH = 32  # uploads over HTTP/1.1, and as many over HTTP/2


def unfinished(live: Live) -> int:
    """The uploads that the relay waits for."""
    return sum(live.app.server.budget._uploads_by_owner.values())


@pytest.mark.parametrize("protocol", ["HTTP/1.1", "HTTP/2"])
@pytest.mark.parametrize("target", PATHS)
async def test_a_65th_upload_is_refused_in_its_dialect(
    live: Live, target: str, protocol: str
) -> None:
    async with several(live.port, EACH + 1) as streams, http2_caller(live.port) as caller:
        for _, writer in streams[1:]:
            writer.write(head(live.key, length=1000) + b"{")
        uploads = [caller.begin(post(live.key)) for _ in range(EACH)]
        await until(lambda: unfinished(live) == 2 * EACH)
        if protocol == "HTTP/1.1":
            reader, writer = streams[0]
            expecting = "expect: 100-continue\r\n"  # without a 100: the body is not collected
            writer.write(head(live.key, target=target, length=1000, fields=expecting))
            status, fields, payload = await read_answer(reader)
            assert fields[b"retry-after"] == b"1"
        else:
            expecting_fields = post(live.key, ("expect", "100-continue"), path=target)
            reply = await caller.answer(caller.begin(expecting_fields))
            status, payload = reply.status, reply.payload
            assert (reply.interim, reply.fields["retry-after"]) == ([], "1")
        document = json.loads(payload)
        assert status == 429
        assert "64 request bodies of this key are on their way" in document["error"]["message"]
        assert ("param" in document["error"]) == (target != "/v1/messages")
        assert document.get("type") == ("error" if target == "/v1/messages" else None)
        assert await served(live, await other_key(live))
        caller.send(DataFrame(uploads[0], body(), flags=["END_STREAM"]))
        assert (await caller.answer(uploads[0])).status == 200
        again = caller.begin(post(live.key))
        await until(lambda: unfinished(live) == 2 * EACH)
        caller.send(DataFrame(again, body(), flags=["END_STREAM"]))
        assert (await caller.answer(again)).status == 200
    await until(lambda: not unfinished(live))
