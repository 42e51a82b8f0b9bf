"""The `thread` of a request, as msgspec reads it."""

import msgspec


class ThreadFields(msgspec.Struct):
    """A thread, by the message that it goes on from (Anthropic API docs, Message threads)."""

    type: str = ""
    previous_message_id: str = ""
