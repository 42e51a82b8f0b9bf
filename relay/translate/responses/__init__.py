"""The Responses API (OpenAI API reference, "Responses"; Open Responses specification, 2026-04-24).

`request` reads requests; `answer` and `stream` translate answers; `seal` protects the thinking
that comes back with the next request.
"""
