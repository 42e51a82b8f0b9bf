"""A provider of OpenID Connect, and a GitHub, on a real socket, whose answers a test can spoil."""

import json
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from tests.web.authenticator import encoded

CLIENT, SECRET = "relay-client", "client-secret-canary"


@cache
def rsa_key(_: str) -> RSAKey:
    """A key for each word; making one takes long."""
    return RSAKey.generate_key(2048, {"kid": "one"})


@dataclass
class Provider:
    """What it says, and what it was asked. `spoil` changes the claims of its ID tokens."""

    url: str = ""
    email: Any = "grace@example.com"
    verified: Any = True
    subject: str = "subject-1"
    spoil: Callable[[dict[str, Any]], None] = lambda claims: None
    answers: dict[str, Any] = field(default_factory=dict)  # path → document, or its octets
    algorithm: str = "RS256"
    key_id: str = "one"
    redirects: dict[str, str] = field(default_factory=dict)  # path → address
    in_token: bool = True  # whether the ID token has the address
    key: RSAKey = field(default_factory=lambda: rsa_key("published"))
    signing: Any = None  # another key than the published one
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def authorize(self, url: str) -> dict[str, str]:
        """What a browser brings back from the address where it was sent."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return {"code": code, "state": query["state"]}

    def document(self, path: str, form: dict[str, str], head: Any) -> tuple[int, Any]:
        """The answer to a request."""
        if path in self.answers:
            return 200, self.answers[path]
        match path:
            case "/.well-known/openid-configuration":
                return 200, {
                    "issuer": self.url,
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "userinfo_endpoint": f"{self.url}/userinfo",
                    "jwks_uri": f"{self.url}/jwks",
                }
            case "/jwks":
                published = self.key.as_dict(private=False)
                return 200, {"keys": [{**published, "kid": self.key_id}]}
            case "/token" | "/login/oauth/access_token":
                return self.token(form, head)
            case "/userinfo":
                return 200, {"sub": self.subject, **self.address()}
            case "/api/v3/user":
                return 200, {"id": 4711, "login": "grace"}
            case "/api/v3/user/emails":
                other = {"email": "old@example.com", "primary": False, "verified": True}
                own = {"email": self.email, "primary": True, "verified": self.verified}
                return 200, [other, own]
        return 404, {}

    def address(self) -> dict[str, Any]:
        return {"email": self.email, "email_verified": self.verified}

    def token(self, form: dict[str, str], head: Any) -> tuple[int, Any]:
        query = self.codes.pop(form.get("code", ""), None)
        basic = b64decode(head.get("authorization", "").partition(" ")[2]).decode()
        if query is None or basic != f"{CLIENT}:{SECRET}":
            return 400, {"error": "invalid_grant"}
        proof = encoded(sha256(form["code_verifier"].encode()).digest())
        if proof != query["code_challenge"] or query["code_challenge_method"] != "S256":
            return 400, {"error": "invalid_grant"}
        answer = {"access_token": "token-canary", "token_type": "Bearer"}
        if "nonce" in query:
            answer["id_token"] = self.id_token(query["nonce"])
        return 200, answer

    def id_token(self, nonce: str) -> str:
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": self.subject, "aud": CLIENT, "iat": now, "exp": now + 300,
            "nonce": nonce,
        }  # fmt: skip
        if self.in_token:
            claims |= self.address()
        self.spoil(claims)
        header = {"alg": self.algorithm, "kid": self.key_id}
        return jwt.encode(header, claims, self.signing or self.key, algorithms=[self.algorithm])


@contextmanager
def running_provider() -> Iterator[Provider]:
    """A provider that answers until the end."""
    provider = Provider()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            provider.asked.append(path)
            length = int(self.headers.get("content-length") or 0)
            body = self.rfile.read(length).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            status, document = provider.document(path, form, self.headers)
            octets = document if isinstance(document, bytes) else json.dumps(document).encode()
            to = provider.redirects.get(path)
            self.send_response(307 if to else status)
            if to:
                self.send_header("location", to)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(octets)))
            self.end_headers()
            self.wfile.write(octets)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
