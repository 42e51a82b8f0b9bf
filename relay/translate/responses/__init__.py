"""The Responses API (docs: OpenAI's API reference, "Responses"; Open Responses, 2026-04-24).

`request` reads what is asked, `answer` and `stream` tell what came of it; `seal` is what of an
answer comes back with the next request and must be what it was.
"""
