"""Errors of an order, in words that say what to do.

Decides the words, and whether the authority asks for patience. Must not know orders.
"""

from typing import Final

import josepy
import requests
from acme import errors, messages

_MAX_DETAIL: Final = 300  # characters of an authority's own text

# By the code of RFC 8555 §6.7: what to do. {port} is where the authority looks.
_ADVICE: Final = {
    "connection": "it could not connect to {domain} on port {port}: open the port in every "
    "firewall on the way, and see that the DNS records of {domain} (A and AAAA) lead here",
    "dns": "it found no address of {domain}: see its DNS records (A and AAAA)",
    "dnssec": "the DNSSEC signatures of {domain} are not valid: see its zone",
    "unauthorized": "another server answered for {domain} on port {port}: see that its DNS records "
    "(A and AAAA) lead here, and that nothing stands in between",
    "incorrectResponse": "another server answered for {domain} on port {port}: see that its DNS "
    "records (A and AAAA) lead here, and that nothing stands in between",
    "tls": "TLS on port {port} of {domain} failed: see that nothing stands in between, such as a "
    "proxy that ends TLS",
    "caa": "a CAA record of {domain} forbids this authority: change the record, or acme.directory",
    "rateLimited": "it has given out too many certificates, or seen too many failures; it is asked "
    "again later. For trials, use acme.staging",
    "rejectedIdentifier": "it gives out no certificates for {domain}: remove it from "
    "server.domains, or use another authority",
    "unsupportedIdentifier": "it gives out no certificates for {domain}",
    "externalAccountRequired": "it wants an account that was opened on its web page: set "
    "acme.eab_key_id and acme.eab_key as it shows them",
    "invalidContact": "it does not accept acme.email: correct or remove it",
    "invalidEmail": "it does not accept acme.email: correct or remove it",
    "unsupportedContact": "it does not accept acme.email: remove it",
    "userActionRequired": "its terms have changed: read them",
    "serverInternal": "it has an error of its own; it is asked again later",
    "badNonce": "it refused six nonces in a row; it is asked again later",
}


def advice(error: BaseException, domain: str, port: int) -> str:
    """The words for an error of an order for `domain`, checked on `port`."""
    if isinstance(error, errors.ValidationError):
        found = [
            challenge.error
            for authorization in error.failed_authzrs
            for challenge in authorization.body.challenges
            if challenge.error is not None
        ]
        return _problem(found[0], domain, port) if found else "it refused the proof"
    if isinstance(error, errors.IssuanceError):
        return _problem(error.error, domain, port)
    if isinstance(error, messages.Error):
        return _problem(error, domain, port)
    if isinstance(error, errors.TimeoutError):
        return "it did not check the proof in time; it is asked again later"
    return _network_words(error)


def _problem(problem: messages.Error, domain: str, port: int) -> str:
    """An error document of the authority."""
    if problem.subproblems and _code(problem) == "compound":
        problem = problem.subproblems[0]
    words = _ADVICE.get(_code(problem), "it refused").format(domain=domain, port=port)
    detail = clean(problem.detail or problem.title or "")
    return f"{words} ({detail})" if detail else words


def _code(problem: messages.Error) -> str:
    """The library's own `code` is None for those that it does not know."""
    return problem.typ.removeprefix(messages.ERROR_PREFIX)


def _network_words(error: BaseException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "its own certificate is not trusted: for a private authority set acme.ca"
    if isinstance(error, requests.exceptions.Timeout):
        return "it did not answer in time; is the way out of this machine open?"
    if isinstance(error, requests.exceptions.ConnectionError):
        return "it cannot be reached: see acme.directory, DNS, and the way out of this machine"
    if isinstance(error, requests.RequestException):
        return f"its answer was cut, or cannot be read ({clean(str(error))})"
    if isinstance(error, OSError):
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    if isinstance(error, ValueError) and type(error) is ValueError:
        return clean(str(error))  # of `keys.check_chain`
    kinds = (errors.Error, josepy.errors.Error, ValueError, KeyError, AttributeError, TypeError)
    if isinstance(error, kinds):
        return f"its answer cannot be read: is acme.directory right? ({clean(repr(error))})"
    return clean(repr(error))


def clean(text: str) -> str:
    """One line of printable text, cut to a length for the log."""
    line = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(line.split())[:_MAX_DETAIL]
