"""The access log for people: one short line a request, coloured in a terminal.

    12:31:07 200  1.24s opus-main   claude-opus-4-8  1,204 in 310 out  ada@example.com /v1/messages

Decides which fields a person reads. The JSON form has all of them (`gateway.access_record`).
"""

import os
import re
from typing import Any, Final

from relay.config import ConfigError, LogSettings
from relay.gateway.access_fields import AccessRecord
from relay.telemetry.access_log import AccessLog, open_log

_COLORS: Final = {"2": "32", "4": "33", "5": "31"}  # by a status' first digit: green, yellow, red
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def open_access_log(settings: LogSettings, descriptor: int) -> AccessLog:
    """The access log on its file, or on `descriptor` if it has none.

    Raises:
        ConfigError: the file cannot be opened.
    """
    if settings.file:
        try:
            descriptor = open_log(settings.file)
        except OSError as error:
            raise ConfigError(
                "log.file",
                f"{settings.file} cannot be opened ({error.strerror}); create its folder, and let "
                "the relay's user write there",
            ) from None
    if settings.format == "json":
        return AccessLog(descriptor, settings.file)
    in_color = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
    return AccessLog(descriptor, settings.file, _render_in_color if in_color else _render_plain)


def _render_plain(record: Any) -> bytes:
    return access_line(record).encode(errors="replace")


def _render_in_color(record: Any) -> bytes:
    return access_line(record, in_color=True).encode(errors="replace")


def access_line(record: AccessRecord, *, in_color: bool = False) -> str:
    """A record as one line, without its end."""
    status = str(record.status or "---")
    if in_color:
        status = f"\x1b[{_COLORS.get(status[0], '0')}m{status}\x1b[0m"
    parts = [record.time[11:19], status, f"{_duration(record.us):>6}"]
    parts += [record.upstream, record.model]
    if record.input is not None or record.output is not None:
        parts.append(f"{record.input or 0:,} in {record.output or 0:,} out")
    parts += [record.user or record.peer, record.path]
    if record.outcome != "whole":
        parts.append(record.outcome)
    # A caller's text must not move the cursor, nor begin a line of its own.
    shown = [part if part is parts[1] else _UNPRINTABLE.sub("?", part) for part in parts]
    return " ".join(part for part in shown if part)


def _duration(us: int) -> str:
    if us < 1_000_000:
        return f"{us / 1000:.0f}ms"
    return f"{us / 1e6:.1f}s"
