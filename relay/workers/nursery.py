"""A small process that forks workers: it was forked itself before there were threads or a loop.

A worker that ends is replaced within milliseconds, shares the memory of the modules that are
loaded, and needs no command line. If it is killed, another one is started as a new program: a
process with threads cannot be forked. Decides how a worker begins: with its end of the link and the
listening sockets. Must not know what it does then.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn

from relay import __version__
from relay.workers.title import NURSERY, set_title, worker_title

_MAX_MESSAGE_OCTETS: Final = 64 * 1024
_MAX_DESCRIPTORS: Final = 253  # SCM_MAX_FD
_REAP_MILLISECONDS: Final = 1_000
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# The program of another such process; its modules come from where the owner's came from.
_PROGRAM: Final = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from importlib import import_module
from relay.workers import nursery
nursery.serve(int(sys.argv[2]), sys.argv[3], getattr(import_module(sys.argv[4]), sys.argv[5]))
"""

# The link, and the listening sockets with their names.
Run = Callable[[socket.socket, list[tuple[str, socket.socket]]], None]


class Nursery:
    """The owner's handle of the process."""

    def __init__(self, sock: socket.socket, pid: int, run: Run) -> None:
        """Use `fork`."""
        self._socket = sock
        self._pid = pid
        self._run = run

    @classmethod
    def fork(cls, run: Run) -> "Nursery":
        """Start the process; `run` is what a worker does. Only while there is a single thread.

        Raises:
            OSError: no process can be started.
        """
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            mine.close()
            _end_with(partial(_serve, theirs, run))
        theirs.close()
        mine.setblocking(False)
        return cls(mine, pid, run)

    @property
    def is_gone(self) -> bool:
        """Whether the process has ended, though it was not closed."""
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def start_again(self) -> None:
        """Start another such process in the place of one that is gone. Blocks for milliseconds; the
        process forks workers as soon as its modules are loaded.

        Raises:
            OSError: no process can be started.
        """
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        path, run = json.dumps(sys.path), self._run
        with theirs:
            number = theirs.fileno()
            words = [path, str(number), __version__, run.__module__, run.__qualname__]
            try:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable, "-c", _PROGRAM, *words],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[number],
                )
            except OSError:
                mine.close()
                raise
        mine.setblocking(False)
        self._socket.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._pid, os.WNOHANG)
        self._socket, self._pid = mine, process.pid
        process.returncode = 0  # it is waited for here

    def start_worker(
        self, link: socket.socket, listeners: Sequence[tuple[str, socket.socket]], number: int
    ) -> None:
        """Have the worker of this number forked; the sockets here may be closed then.

        Raises:
            OSError: the process that forks is gone, or has too much to do.
        """
        message = json.dumps([number, [name for name, _ in listeners]]).encode()
        descriptors = [link.fileno(), *(sock.fileno() for _, sock in listeners)]
        socket.send_fds(self._socket, [message], descriptors)

    def close(self) -> None:
        """End the process. Workers end with their links."""
        self._socket.close()


def serve(descriptor: int, version: str, run: Run) -> None:
    """Fork workers until the owner, of this version, is gone. In a program of its own."""
    if version != __version__:  # its messages may be others
        print(
            f"relay: version {__version__} is installed now, and {version} runs: no worker can be "
            "started; `relay upgrade` lets the new one take over",
            file=sys.stderr,
            flush=True,
        )
        return
    _serve(socket.socket(fileno=descriptor), run)


def _serve(sock: socket.socket, run: Run) -> None:
    """Fork workers until the owner is gone."""
    set_title(NURSERY)
    for ignored in _IGNORED:  # the owner ends its workers
        signal.signal(ignored, signal.SIG_IGN)
    poller = select.poll()  # unlike `select`, it takes any descriptor
    poller.register(sock, select.POLLIN)
    while True:
        if poller.poll(_REAP_MILLISECONDS):
            message, descriptors, _, _ = socket.recv_fds(
                sock, _MAX_MESSAGE_OCTETS, _MAX_DESCRIPTORS
            )
            if not message:
                return
            if _forked():
                sock.close()
                number, names = json.loads(message)
                set_title(worker_title(number))
                link, *listening = [socket.socket(fileno=one) for one in descriptors]
                named = list(zip(names, listening, strict=True))
                _end_with(partial(run, link, named))
            for descriptor in descriptors:
                os.close(descriptor)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _forked() -> bool:
    """Fork; whether this is the new process. If there can be none now, the link ends, and the owner
    tries again."""
    try:
        return os.fork() == 0
    except OSError as error:
        print(f"relay: no process can be started: {error}", file=sys.stderr, flush=True)
        return False


def _end_with(work: Callable[[], None]) -> NoReturn:
    """Do the work of a forked process, and end it without what its parent would do at its end."""
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
