"""Reads request and answer bodies, and translates one dialect into another. No I/O.

messages/        what the relay reads of a Messages body, of an answer and of an event stream
request/         one Messages request made from another dialect, written for one model
chat/            chat completions: the request, the answer, the stream
responses/       the Responses API: the request, the answer, the stream
raw_json         JSON strings kept as the octets that they came in
invalid          the 400 that names the field at fault
"""
