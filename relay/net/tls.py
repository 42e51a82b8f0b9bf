"""TLS contexts from files: for the listener, and to verify upstreams.

Decides protocol versions and the protocol offered (ALPN, RFC 7301). Must not know connections.
"""

import ssl

from relay.config import ConfigError, Settings, TlsSettings


def listener(tls: TlsSettings) -> ssl.SSLContext:
    """The listener's context: TLS 1.2 or later, with the certificate and key of `server.tls`.

    Raises:
        ConfigError: the files are not a certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    renew(context, tls)
    return context


def renew(context: ssl.SSLContext, tls: TlsSettings) -> None:
    """Let a listener's context present the certificate that its files hold now.

    Raises:
        ConfigError: the files are not a certificate and its key.
    """
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except OSError as error:  # or its subclass ssl.SSLError
        raise ConfigError("server.tls", "cert and key are no certificate and its key") from error


def upstream(ca: str | None) -> ssl.SSLContext:
    """A context that verifies upstreams by the file `ca`; None: by the system's certificates.

    Raises:
        ValueError: the file has no certificates.
    """
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError:
        raise ValueError(f"ca: there are no certificates in {ca}") from None


def check(settings: Settings) -> None:
    """Load every certificate and key of the settings.

    Raises:
        ConfigError: one of them cannot be used.
    """
    if settings.server.tls is not None:
        listener(settings.server.tls)
    for index, section in enumerate(settings.upstream):
        if section.ca is not None:
            try:
                upstream(section.ca)
            except ValueError as error:
                raise ConfigError(
                    f"upstream[{index}].ca", str(error).removeprefix("ca: ")
                ) from None
