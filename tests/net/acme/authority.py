"""An ACME server that fails in every way: `Authority(fault)`. It checks no signature, no proof."""

import base64
import datetime
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ERROR = "urn:ietf:params:acme:error:"
# Faults that are the error of a challenge.
OF_CHALLENGES = {"connection", "dns", "unauthorized", "tls", "caa", "incorrectResponse"}
# Faults that are an error document for a new order, with the status.
OF_ORDERS = {
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "userActionRequired": 403,
    "compound": 400,
}


class Authority:
    """The state of the server: one account, one order."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.url = ""
        self.requests: list[str] = []  # paths, in order
        self.domain = ""
        self.is_finalized = False
        self.chain = b""
        self.refused_nonces = 0
        self.renewal_info: dict[str, Any] | None = None  # None: it has none
        self.asked_about: list[str] = []  # certificates
        self.replaced: list[str | None] = []  # by each order, certificates
        self.directories_asked_for = 0
        self.nonces_asked_for = 0
        self.bindings: list[Any] = []  # of new accounts
        self.nonces = [""]  # handed out; the last one alone is good
        self.released = threading.Event()
        self._root = ec.generate_private_key(ec.SECP256R1())
        self._intermediate = ec.generate_private_key(ec.SECP256R1())

    def restart(self) -> None:
        """Forget the order."""
        self.requests.clear()
        self.is_finalized = False

    def new_nonce(self) -> str:
        number = len(self.nonces).to_bytes(18)
        self.nonces.append(base64.urlsafe_b64encode(number).decode())
        return self.nonces[-1]

    # --- documents ---

    def directory(self) -> dict[str, Any]:
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "new-order"}
        if self.renewal_info is not None:
            names["renewalInfo"] = "renewal-info"
        return {name: f"{self.url}/{path}" for name, path in names.items()}

    def order(self) -> dict[str, Any]:
        order: dict[str, Any] = {
            "status": "pending",
            "identifiers": [{"type": "dns", "value": self.domain}],
            "authorizations": [f"{self.url}/authorization"],
            "finalize": f"{self.url}/finalize",
        }
        if self.is_finalized and self.fault == "order invalid":
            problem = {"type": ERROR + "caa", "detail": "forbidden by\x1b[31m\nCAA"}
            return {**order, "status": "invalid", "error": problem}
        if self.is_finalized and self.fault == "order invalid without a word":
            return {**order, "status": "invalid"}
        if self.is_finalized:
            return {**order, "status": "valid", "certificate": f"{self.url}/certificate"}
        return order

    def authorization(self) -> dict[str, Any]:
        kinds = ["dns-01"] if self.fault == "no challenge" else ["http-01", "tls-alpn-01", "new-01"]
        token = base64.urlsafe_b64encode(b"t" * 32).rstrip(b"=").decode()
        challenges: list[dict[str, Any]] = [
            {"type": kind, "url": f"{self.url}/challenge", "token": token, "status": "pending"}
            for kind in kinds
        ]
        status = "pending"
        is_held = self.fault == "held" and not self.released.is_set()
        if "/challenge" in self.requests and self.fault != "stuck" and not is_held:
            status = "invalid" if self.fault in OF_CHALLENGES else "valid"
            if status == "invalid":
                problem = {"type": ERROR + self.fault, "detail": "its own words"}
                challenges[0].update(status="invalid", error=problem)
        return {
            "status": status,
            "identifier": {"type": "dns", "value": self.domain},
            "challenges": challenges,
        }

    def issue(self, request: x509.CertificateSigningRequest) -> None:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if self.fault == "other name":
            names = x509.SubjectAlternativeName([x509.DNSName("other.example")])
        key: Any = request.public_key()
        if self.fault == "other key":
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
        days = -1 if self.fault == "expired" else 90
        leaf = _certificate("leaf", key, "middle", self._intermediate, names, days)
        signer = self._intermediate if self.fault == "broken chain" else self._root
        middle = _certificate("middle", self._intermediate.public_key(), "root", signer)
        if self.fault == "broken chain":
            stranger = ec.generate_private_key(ec.SECP256R1())
            middle = _certificate("middle", stranger.public_key(), "root", self._root)
        encoding = serialization.Encoding.PEM
        self.chain = leaf.public_bytes(encoding) + middle.public_bytes(encoding)
        if self.fault == "no certificate":
            self.chain = b"hello"


def _certificate(
    name: str,
    key: Any,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    names: x509.SubjectAlternativeName | None = None,
    days: int = 90,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    authority: Authority

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def answer(self, status: int, document: Any, **fields: str) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("content-type", fields.pop("kind", "application/json"))
        if self.authority.fault != "no nonce":
            self.send_header("replay-nonce", self.authority.new_nonce())
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def problem(self, status: int, code: str, **fields: str) -> None:
        document: dict[str, Any] = {"type": ERROR + code, "detail": "its own words"}
        if code == "compound":
            document["subproblems"] = [{"type": ERROR + "caa", "detail": "a part"}]
        self.answer(status, document, kind="application/problem+json", **fields)

    def do_HEAD(self) -> None:
        self.authority.nonces_asked_for += 1
        self.answer(200, b"")

    def do_GET(self) -> None:
        authority = self.authority
        if authority.fault == "silent":
            authority.released.wait(20)
        if authority.fault == "cut":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{")
            self.close_connection = True
        elif authority.fault == "no JSON":
            self.answer(200, b"<html>", kind="text/html")
        elif authority.fault == "another JSON":
            self.answer(200, {"hello": 1})
        elif self.path.startswith("/renewal-info/"):
            authority.asked_about.append(self.path.removeprefix("/renewal-info/"))
            self.answer(200, authority.renewal_info, retry_after="7200")
        else:
            authority.directories_asked_for += 1
            self.answer(200, authority.directory())

    def do_POST(self) -> None:
        authority, path = self.authority, self.path
        authority.requests.append(path)
        sent = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = base64.urlsafe_b64decode(sent["payload"] + "==")
        payload = json.loads(text) if text else {}
        protected = json.loads(base64.urlsafe_b64decode(sent["protected"] + "=="))
        limit = {"bad nonces": 1000, "five bad nonces": 5, "bad nonce": 1}.get(authority.fault, 0)
        if protected["nonce"] != authority.nonces[-1]:
            self.problem(400, "badNonce")
        elif authority.refused_nonces < limit:
            authority.refused_nonces += 1
            self.problem(400, "badNonce")
        elif path == "/account":
            self._account(payload)
        elif path == "/new-order":
            self._new_order(payload)
        elif path == "/authorization":
            self.answer(200, authority.authorization())
        elif path == "/challenge":
            kind = 0 if payload == {} else 1
            link = f'<{authority.url}/authorization>;rel="up"'
            self.answer(200, authority.authorization()["challenges"][kind], link=link)
        elif path == "/finalize":
            der = base64.urlsafe_b64decode(payload["csr"] + "==")
            authority.issue(x509.load_der_x509_csr(der))
            authority.is_finalized = True
            self.answer(200, authority.order())
        elif path == "/order":
            self.answer(200, authority.order())
        else:
            self.answer(200, authority.chain, kind="application/pem-certificate-chain")

    def _account(self, payload: Any) -> None:
        self.authority.bindings.append(payload.get("externalAccountBinding"))
        fault, location = self.authority.fault, f"{self.authority.url}/account/1"
        if fault == "externalAccountRequired":
            self.problem(400, fault)
        elif fault == "rateLimited account":
            self.problem(429, "rateLimited")
        elif fault == "known account":
            self.answer(200, {"status": "valid"}, location=location)
        else:
            self.answer(201, {"status": "valid"}, location=location)

    def _new_order(self, payload: Any) -> None:
        authority = self.authority
        fault = authority.fault
        authority.domain = payload["identifiers"][0]["value"]
        authority.replaced.append(payload.get("replaces"))
        if fault == "forgotten account" and authority.requests.count("/account") == 0:
            self.problem(400, "accountDoesNotExist")
        elif fault == "alreadyReplaced" and "replaces" in payload:
            self.problem(409, fault)
        elif fault in OF_ORDERS:
            self.problem(OF_ORDERS[fault], fault, retry_after="7200")
        elif fault == "a date":
            self.problem(
                429, "rateLimited", retry_after=formatdate(time.time() + 7200, usegmt=True)
            )
        elif fault == "no date":
            self.problem(429, "rateLimited", retry_after="soon")
        elif fault == "503":
            self.answer(503, b"<html>", kind="text/html", retry_after="120")
        else:
            self.answer(201, authority.order(), location=f"{authority.url}/order")


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing: clients that give up are what is tested."""


@contextmanager
def running_authority(folder: Path, fault: str) -> Iterator[Authority]:
    """An authority whose own certificate is trusted by `folder`'s authority.pem."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(folder / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    authority = Authority(fault)
    handler = type("Handler", (_Handler,), {"authority": authority})
    server = _Server(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    authority.url = f"https://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield authority
    finally:
        authority.released.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
