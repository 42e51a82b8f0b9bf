"""What bodies say, and how one dialect is told in another; without I/O.

peek, session, usage, opening, thinking    what the relay must know of a Messages body that
                                           it passes on as it is
chat, chat_messages                        a chat completions request, read into a
draft: turns, toolset, wishes, replay,     Messages request that is written for one model
  media, schema, block                     as one upstream has it
responses/                                 the same for the Responses API, and its answers
completion, completion_*                   an answer as a chat completion, whole and streamed
message, event, events, content, failure   what an upstream answers, for whatever dialect
text, wrong                                JSON as the octets that it came in, and mistakes
                                           told by their place
"""
