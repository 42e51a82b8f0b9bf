"""The interface of a rival, a proxy that the bench can measure.

Decides how a rival's process is started and made ready. Must not know what is measured.
"""

import ssl
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench.certificate import Certificate
from bench.process import Process

# The credential that the simulated upstream accepts.
UPSTREAM_KEY = "sim-key"


class Rival(ABC):
    """One proxy with its configuration; it can be started many times.

    The relay and the plain proxies do the same work: they set the upstream's credential, remove
    the caller's, drop the fields of an answer that belong to the upstream's account, keep
    connections alive on both sides and write an access log. Gateways of other projects do what
    relay/docs/bench.md says. Beyond that each rival has its natural settings, those that its own
    documentation recommends for such work on one core.
    """

    name: str
    dialects: frozenset[str]  # names of the dialects that its callers may speak
    streams: frozenset[str]  # of these, the ones in which it streams
    # It carries any octets, so that in the scenarios of another dialect it carries the same turn
    # in Messages. Any other rival is left out of a scenario whose dialect it does not have.
    plain = False
    is_proxy = True  # False: clients are connected to the upstream itself
    # A failure of this rival costs its own figures alone; any other failure ends the run.
    may_fail = False
    fields = ""  # header lines that its callers send beside those of their dialect
    forwards_fields = True  # whether the field `x-simulate` reaches the upstream
    most_streams: int | None = None  # at once, that it can carry on one core
    unable: Mapping[str, str] = MappingProxyType({})  # why it has no part in a scenario, by name
    warm_s = 0.0  # of requests, at the least, before they are measured
    ready_path = "/readyz"
    ready_s = 10.0  # in which it gets ready at the latest
    version: str
    settings: str  # its configuration as written, kept with the figures
    key: str  # the credential that its callers send
    json_port: int
    sse_port: int
    http2_ports: tuple[int, int] | None = None  # as the two above, without TLS; None: no HTTP/2
    tls: ssl.SSLContext | None = None  # of its callers, where all its ports speak TLS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def argv(self) -> Sequence[str]:
        """The command that runs this proxy in the foreground."""

    def environment(self) -> Mapping[str, str] | None:
        """Environment variables of the process; None: those of the bench."""
        return None

    def own_figures(self) -> Mapping[str, float]:
        """The figures that the running proxy reports of itself, after a round."""
        return {}

    def secured(self, folder: Path, certificate: Certificate) -> "Rival | None":
        """The same rival with TLS (HTTP/1.1 and HTTP/2 by ALPN); None: it cannot be had."""
        return None

    def start(self, core: int) -> tuple[Process, float]:
        """A running proxy that answers, and the seconds until it did.

        Raises:
            BenchError: it cannot be started, or does not get ready in time.
        """
        log = self.folder / "error.log"
        process = Process(self.name, self.argv(), core, log, self.environment())
        try:
            seconds = process.ready(self.json_port, self.ready_path, self.ready_s, self.tls)
        except BaseException:
            process.stop()
            raise
        return process, seconds
