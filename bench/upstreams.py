"""The upstreams behind the rivals: the simulator, and answers recorded from it.

Decides how they are started, on the core of the load. Must not know what is measured.
"""

import http.client
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from bench.process import BenchError, Process, free_ports
from bench.rivals.nginx import nginx_program, static_settings
from bench.rivals.relay import RELAY, TREE, environment

_CONTROL_S = 10.0
_SCRIPTED = 10_000  # requests that one script is for: more than any round sends


def start_simulator(folder: Path, core: int) -> tuple[Process, int]:
    """The simulated upstream, and its port."""
    (port,) = free_ports(1)
    argv = [*RELAY, "simulate", "--port", str(port)]
    return _start(
        "relay simulate", argv, core, folder / "upstream.err", port, environment(str(TREE))
    )


def put_script(port: int, simulate: str) -> None:
    """Let the simulator answer as `simulate` says where a request itself does not say how."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_CONTROL_S)
    try:
        connection.request("PUT", "/simulate/script", orjson.dumps([simulate] * _SCRIPTED))
        answer = connection.getresponse()
        if answer.status != http.HTTPStatus.OK:
            raise BenchError(f"the simulator takes no script: {answer.read().decode()}")
    finally:
        connection.close()


def start_replay(folder: Path, core: int, answer: bytes) -> tuple[Process, int]:
    """An upstream that gives these octets to every request, and its port."""
    (port,) = free_ports(1)
    recorded = folder / "answer.http"
    recorded.write_bytes(answer)
    program = str(Path(__file__).with_name("replay.py"))
    argv = [sys.executable, "-P", program, str(port), str(recorded)]
    return _start("replay", argv, core, folder / "replay.err", port)


def start_ticking(folder: Path, core: int, opening: bytes, ending: bytes) -> tuple[Process, int]:
    """An upstream whose events carry their time, and its port."""
    (port,) = free_ports(1)
    ends = []
    for name, octets in (("opening", opening), ("ending", ending)):
        (folder / name).write_bytes(octets)
        ends.append(str(folder / name))
    argv = [sys.executable, "-P", "-m", "bench.ticking", str(port), *ends]
    return _start("ticking", argv, core, folder / "ticking.err", port, environment(str(TREE)))


def start_static(folder: Path, core: int, answer: bytes) -> tuple[Process, int]:
    """nginx that gives this answer to every request, and its port."""
    program = nginx_program()
    assert program is not None
    (port,) = free_ports(1)
    (folder / "nginx.conf").write_text(static_settings(folder, port, answer))
    argv = [program, "-p", str(folder), "-e", f"{folder}/static.err", "-c", "nginx.conf"]
    return _start("static", argv, core, folder / "static.err", port)


def _start(
    name: str,
    argv: Sequence[str],
    core: int,
    log: Path,
    port: int,
    environment: Mapping[str, str] | None = None,
) -> tuple[Process, int]:
    process = Process(name, argv, core, log, environment)
    try:
        process.ready(port, "/")
    except BaseException:
        process.stop()
        raise
    return process, port
