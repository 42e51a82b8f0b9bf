"""One order: from an account to a checked certificate, by the library `acme`.

Runs on a thread of its own and blocks. Decides the steps of an order (RFC 8555 §7.1). Must not know
when it is called.
"""

import contextlib
import datetime
from dataclasses import dataclass
from typing import Any, Final

from acme import challenges as acme_challenges
from acme import client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from josepy import jwk

from relay.net.acme import keys
from relay.net.acme.advice import advice, clean
from relay.net.acme.challenges import Challenges
from relay.net.acme.folder import AcmeFolder
from relay.net.acme.network import Network
from relay.net.acme.renewal_info import certificate_id
from relay.net.acme.turns import Proof, proven
from relay.secret import Secret

HTTP_01: Final = "http-01"
TLS_ALPN_01: Final = "tls-alpn-01"
# Errors of a new account that are those of its binding, if it has one.
_OF_BINDINGS: Final = ("unauthorized", "malformed", "externalAccountRequired")
# Errors of an order that are not those of the certificate that it is to replace.
_NOT_OF_REPLACEMENTS: Final = ("accountDoesNotExist", "rateLimited", "userActionRequired")
PORTS: Final = {HTTP_01: 80, TLS_ALPN_01: 443}

_ORDER_TIMEOUT: Final = datetime.timedelta(seconds=120)


@dataclass(frozen=True, slots=True)
class Binding:
    """An account at the authority that an account of ours is bound to (RFC 8555 §7.3.4)."""

    key_id: str
    key: Secret  # in base64url


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for, and where."""

    domain: str
    directory: str
    email: str
    ca: str | None
    challenge: str  # HTTP_01 or TLS_ALPN_01
    binding: Binding | None = None


class OrderError(Exception):
    """An order that failed: words for the operator, and the seconds that the authority asks to
    wait before the next one."""

    def __init__(self, words: str, retry_after: float | None) -> None:
        super().__init__(words)
        self.retry_after = retry_after


@acme_challenges.ChallengeResponse.register
class _TlsAlpn01Response(acme_challenges.KeyAuthorizationChallengeResponse):
    typ = TLS_ALPN_01


@acme_challenges.Challenge.register
class _TlsAlpn01(acme_challenges.KeyAuthorizationChallenge):
    """RFC 8737, which the library leaves to its user."""

    response_cls = _TlsAlpn01Response
    typ = TLS_ALPN_01

    def validation(self, account_key: jwk.JWK, **_: Any) -> str:
        return self.key_authorization(account_key)


def fetch(order: Order, folder: AcmeFolder, answers: Challenges) -> bytes:
    """Order a certificate; returns its key and chain, PEM.

    Raises:
        OrderError: there is none.
    """
    network = Network(None, order.ca)
    try:
        return _Session(order, folder, network).run(answers)
    except Exception as error:
        words = advice(error, order.domain, PORTS[order.challenge])
        raise OrderError(words, network.retry_after) from error


class _Session:
    def __init__(self, order: Order, folder: AcmeFolder, network: Network) -> None:
        self._order = order
        self._folder = folder
        self._key = network.key = jwk.JWKEC(key=self._account_key())
        self._network = network

    def run(self, answers: Challenges) -> bytes:
        order, until = self._order, datetime.datetime.now() + _ORDER_TIMEOUT
        directory = client.ClientV2.get_directory(order.directory, self._network)
        authority = client.ClientV2(directory, self._network)
        key = keys.new_key()
        request = crypto_util.make_csr(keys.pem(key), [order.domain])
        placed = self._place(authority, request)
        with contextlib.ExitStack() as answered:
            for authorization in placed.authorizations:
                if authorization.body.status != messages.STATUS_VALID:
                    self._prove(authority, authorization, answers, answered)
            placed = authority.poll_authorizations(placed, until)
        placed = authority.finalize_order(placed, until)
        chain = (placed.fullchain_pem or "").encode()
        keys.check_chain(chain, key, order.domain)
        return keys.pem(key) + chain

    def _account_key(self) -> Any:
        stored = self._folder.read(self._folder.account_key)
        if stored is not None:
            return serialization.load_pem_private_key(stored, None)
        key = keys.new_key()
        self._folder.write(self._folder.account_key, keys.pem(key))
        return key

    def _place(self, authority: client.ClientV2, request: bytes) -> messages.OrderResource:
        """Place the order, with an account that is opened if need be."""
        known = self._folder.read(self._folder.account_url)
        if known is not None:
            self._use_account(known.decode())
            try:
                return self._new_order(authority, request)
            except messages.Error as error:
                if error.code != "accountDoesNotExist":
                    raise
                self._network.account = None
        url = self._open_account(authority)
        self._folder.write(self._folder.account_url, url.encode())
        self._use_account(url)
        return self._new_order(authority, request)

    def _new_order(self, authority: client.ClientV2, request: bytes) -> messages.OrderResource:
        """Place the order, in place of the present certificate where the authority knows that:
        some give renewals higher limits. It is ordered all the same if that is refused."""
        self._network.replaces = self._replaced(authority.directory)
        try:
            return authority.new_order(request)
        except errors.ConflictError:  # alreadyReplaced
            if not self._network.replaces:
                raise
        except messages.Error as error:
            if not self._network.replaces or error.code in _NOT_OF_REPLACEMENTS:
                raise
        self._network.replaces = ""
        return authority.new_order(request)

    def _replaced(self, directory: messages.Directory) -> str:
        """The id of the certificate that is renewed; "": there is none, or it is of no use."""
        try:
            if not directory["renewalInfo"]:
                return ""
        except KeyError:
            return ""
        chain = self._folder.read(self._folder.certificate(self._order.domain))
        try:
            return "" if chain is None else certificate_id(x509.load_pem_x509_certificate(chain))
        except ValueError:
            return ""

    def _open_account(self, authority: client.ClientV2) -> str:
        """The URL of the account of our key, which is opened if there is none."""
        email, binding = self._order.email or None, self._order.binding
        bound = None
        if binding is not None:
            bound = messages.ExternalAccountBinding.from_data(
                self._key.public_key(), binding.key_id, binding.key.reveal(), authority.directory
            )
        data = messages.NewRegistration.from_data(
            email=email, terms_of_service_agreed=True, external_account_binding=bound
        )
        try:
            return str(authority.new_account(data).uri)
        except errors.ConflictError as error:  # this key has an account
            return error.location
        except messages.Error as error:
            if bound is None or error.code not in _OF_BINDINGS:
                raise
            detail = clean(error.detail or "")
            raise ValueError(
                f"it does not accept acme.eab_key_id with acme.eab_key ({detail})"
            ) from None

    def _use_account(self, url: str) -> None:
        self._network.account = messages.RegistrationResource(uri=url, body=messages.Registration())

    def _prove(
        self,
        authority: client.ClientV2,
        authorization: messages.AuthorizationResource,
        answers: Challenges,
        answered: contextlib.ExitStack,
    ) -> None:
        """Answer the challenge of one authorization for as long as `answered` is open."""
        kind, domain = self._order.challenge, self._order.domain
        for offered in authorization.body.challenges:
            if offered.chall.typ == kind:
                break
        else:
            raise ValueError(f"it offers no challenge of the kind {kind}: see acme.challenge")
        response = offered.response(self._key)
        token = str(offered.chall.encode("token")) if kind == HTTP_01 else ""
        proof = Proof(domain, token, offered.chall.key_authorization(self._key))
        answered.enter_context(proven(self._folder, answers, proof))
        authority.answer_challenge(offered, response)
