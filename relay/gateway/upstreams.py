"""An upstream as the gateway uses it: its connections, and the head of a request to it."""

from urllib.parse import urlsplit

from relay import certificates, config
from relay.net.client import Origin
from relay.net.pool import Pool
from relay.net.timers import Timers
from relay.wire.events import Request


class Upstream:
    """One credential at one origin. Its repr shows no credential."""

    def __init__(self, settings: config.Upstream, timers: Timers) -> None:
        """Raises ValueError: the credential or the `ca` file cannot be read."""
        parts = urlsplit(settings.base_url)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        times = settings.timeouts
        self.name = settings.name
        self.priority = settings.priority
        self.pool = Pool(
            Origin(
                host=parts.hostname,
                port=parts.port or (443 if secure else 80),
                tls=certificates.upstream(settings.ca) if secure else None,
                connect_time=times.connect,
                first_byte_time=times.first_byte,
                silence_time=times.silence,
                idle_time=times.idle,
            ),
            timers,
        )
        credential = settings.credential().reveal()
        field = f"authorization: Bearer {credential}"
        if settings.auth == "x-api-key":
            field = f"x-api-key: {credential}"
        added = "".join(f"{name}: {value}\r\n" for name, value in settings.headers.items())
        self._prefix = parts.path.rstrip("/").encode()
        self._fixed = (
            f"host: {parts.netloc}\r\n{field}\r\naccept-encoding: identity\r\n{added}".encode()
        )
        self._overridden = tuple(name.lower().encode() + b":" for name in settings.headers)

    def __repr__(self) -> str:
        return f"<Upstream {self.name} {self.pool!r}>"

    def head(self, request: Request, length: int) -> bytes:
        """The head of `request` as this upstream gets it, for a body of `length` octets."""
        onward = request.onward
        if self._overridden:
            onward = b"".join(
                line + b"\r\n"
                for line in onward.split(b"\r\n")
                if line and not line.lower().startswith(self._overridden)
            )
        return b"%b %b%b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (
            request.method,
            self._prefix,
            request.target,
            self._fixed,
            onward,
            length,
        )
