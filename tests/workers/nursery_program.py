"""A process with more than 1,024 open files that starts its nursery again, and a worker with it."""

import os
import resource
import signal
import socket

from relay.workers.nursery import Nursery

_FILES = 1_100


def run(link: socket.socket, listeners: list[tuple[str, socket.socket]]) -> None:
    """What the worker does."""
    link.sendall(b"here")


def main() -> None:
    """Print what the worker sent; nothing if there was none."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * _FILES, most))
    nursery = Nursery.fork(run)
    os.kill(nursery._pid, signal.SIGKILL)
    os.waitpid(nursery._pid, 0)
    assert nursery.is_gone
    for _ in range(_FILES):
        os.open(os.devnull, os.O_RDONLY)
    nursery.start_again()
    mine, link = socket.socketpair()
    nursery.start_worker(link, [], 0)
    link.close()
    print(mine.recv(4).decode())
