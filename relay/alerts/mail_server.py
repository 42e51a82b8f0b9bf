"""One attempt to send a mail by the operator's server, for alerts and for people.

Decides encryption by the port, time-outs, and which failures are worth another attempt. Blocks, so
it runs on a thread of its own. Must not know what mails say.
"""

import smtplib
import ssl
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Final, Literal, Protocol

_TIMEOUT_SECONDS: Final = 10.0
_TLS_PORT: Final = 465  # RFC 8314 §3.3
_STARTTLS_PORTS: Final = (25, 587)


class DeliveryError(Exception):
    """An attempt failed; the message is one line. `final`: another one would fail, too.
    `of_recipient`: mails to others may be taken."""

    def __init__(self, reason: str, *, final: bool = False, of_recipient: bool = False) -> None:
        super().__init__(reason)
        self.final = final
        self.of_recipient = of_recipient


class MailServer(Protocol):
    """The settings of a server."""

    @property
    def smtp(self) -> str: ...
    @property
    def encryption(self) -> Literal["auto", "tls", "starttls", "off"]: ...
    @property
    def user(self) -> str: ...
    def resolved(self, name: str) -> str: ...


def letter(name: str, sender: str, to: str, subject: str, text: str) -> EmailMessage:
    """A mail to a person. `name` is the relay's, `sender` its address."""
    message = EmailMessage()
    message["From"] = Address(name, addr_spec=sender)  # quotes a comma
    message["To"] = to
    message["Subject"] = subject
    message["Date"] = formatdate()
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no answers of absent people
    message.set_content(text)
    return message


def send_message(settings: MailServer, message: EmailMessage) -> None:
    """Send a mail.

    Raises:
        DeliveryError: the server was not reached, or did not take it.
    """
    try:
        _send(settings, message)
    except TimeoutError:
        raise DeliveryError(f"no answer within {_TIMEOUT_SECONDS:.0f} s") from None
    except ssl.SSLError as error:
        raise DeliveryError(f"TLS failed: {error.reason or 'certificate not accepted'}") from None
    except smtplib.SMTPException as error:
        raise _mail_error(error) from None
    except OSError as error:
        raise DeliveryError(error.strerror or str(error) or "connection failed") from None


def _send(settings: MailServer, message: EmailMessage) -> None:
    try:
        password = settings.resolved("password")
    except ValueError as error:
        raise DeliveryError(str(error), final=True) from None
    host, _, number = settings.smtp.rpartition(":")
    port = int(number)
    encryption: str = settings.encryption
    if encryption == "auto":
        by_port = "starttls" if port in _STARTTLS_PORTS else "off"
        encryption = "tls" if port == _TLS_PORT else by_port
    context = ssl.create_default_context()
    host = host.strip("[]")
    if encryption == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(
            host, port, timeout=_TIMEOUT_SECONDS, context=context
        )
    else:
        server = smtplib.SMTP(host, port, timeout=_TIMEOUT_SECONDS)
    with server:
        if encryption == "starttls":
            server.starttls(context=context)
        if settings.user:
            server.login(settings.user, password)
        server.send_message(message)


def _mail_error(error: smtplib.SMTPException) -> DeliveryError:
    code = getattr(error, "smtp_code", 0)
    of_recipient = False
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code = max((code for code, _ in error.recipients.values()), default=0)
        of_recipient = True
    if not code:
        return DeliveryError(f"SMTP failed ({type(error).__name__})")
    reason = f"the mail server refused with {code}"
    return DeliveryError(reason, final=code >= 500, of_recipient=of_recipient)
