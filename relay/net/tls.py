"""TLS contexts from files: the listener's own, and what upstreams are held to."""

import ssl

from relay.config import ConfigError, Settings, TlsSettings


def listener(tls: TlsSettings) -> ssl.SSLContext:
    """For `server.tls`.

    Raises:
        ConfigError: the files are no certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError("server.tls", "cert and key are no certificate and its key") from error
    return context


def upstream(ca: str | None) -> ssl.SSLContext:
    """With verification, by the system's certificates or by those in the file `ca`.

    Raises:
        ValueError: there are no certificates in the file.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError:
        raise ValueError(f"ca: there are no certificates in {ca}") from None


def check(settings: Settings) -> None:
    """Read every file that the settings name.

    Raises:
        ConfigError: one of them cannot be used.
    """
    if settings.server.tls is not None:
        listener(settings.server.tls)
    for number, one in enumerate(settings.upstream):
        if one.ca is not None:
            try:
                upstream(one.ca)
            except ValueError as error:
                raise ConfigError(
                    f"upstream[{number}].ca", str(error).removeprefix("ca: ")
                ) from None
