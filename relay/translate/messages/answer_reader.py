"""Reads an upstream's answer of unknown form as it arrives.

Decides when enough of it is here: a stream's first content where a stream was asked for, else its
end. Must not know upstreams.
"""

from relay.translate.messages.answer_form import Form, form_of
from relay.translate.messages.event_document import StreamDocument
from relay.translate.messages.first_content import FirstContent


class AnswerReader:
    """Takes the octets of an answer. `streams`: a stream was asked for.

    `form` is None as long as it is not known. `first` has read a stream that was asked for,
    `document` one that was not. `broken`: an event could not be read.
    """

    __slots__ = ("_start", "broken", "document", "first", "form", "streams")

    def __init__(self, *, streams: bool) -> None:
        self.streams = streams
        self.form: Form | None = None
        self.first = FirstContent()
        self.document = StreamDocument()
        self.broken = False
        self._start = b""

    def feed(self, octets: bytes) -> bool:
        """Take the next octets; whether enough of the answer is here."""
        if self.form is None:
            octets = self._start + octets
            self.form = form_of(octets, complete=False)
            if self.form is None:
                self._start = octets
                return False
        if self.form is not Form.STREAM:
            return self.form is Form.OTHER
        if self.streams:
            return self.first.feed(octets)
        try:
            self.document.feed(octets)
        except (ValueError, RecursionError):
            self.broken = True
        return self.broken or self.document.error is not None
