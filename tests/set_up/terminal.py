"""Runs a command in a terminal of its own, and answers its questions.

    python terminal.py TALK COMMAND

TALK is a file of JSON: a list of [question, answer]. Without an answer (null) the command is ended.
The status is the command's; 99, if a question did not come.
"""

import json
import os
import pty
import select
import signal
import sys
from pathlib import Path

_PATIENCE = 40.0  # seconds without a word


def main(talk: str, command: str) -> int:
    """See the module."""
    rest = json.loads(Path(talk).read_text())
    child, terminal = pty.fork()
    if child == 0:
        os.execv("/bin/sh", ["sh", "-c", command])
    seen = ""
    while select.select([terminal], [], [], _PATIENCE)[0]:
        try:
            octets = os.read(terminal, 4096)
        except OSError:  # Linux: the other side has closed
            break
        if not octets:
            break
        sys.stdout.write(octets.decode(errors="replace"))
        sys.stdout.flush()
        seen += octets.decode(errors="replace")
        while rest and rest[0][0] in seen:
            question, answer = rest.pop(0)
            seen = seen.partition(question)[2]
            if answer is None:
                os.kill(child, signal.SIGKILL)
                break
            os.write(terminal, answer.encode() + b"\r")  # as the key Enter
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return 99 if rest else status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
