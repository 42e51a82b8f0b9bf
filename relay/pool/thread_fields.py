"""The `thread` of a request, as msgspec reads it."""

import msgspec


class ThreadFields(msgspec.Struct):
    """See Anthropic API docs, Message threads."""

    type: str = ""
    previous_message_id: str = ""
