"""What is believed of a provider: nothing that is not for this relay and this log-in."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joserfc.jwk import OctKey

from relay.accounts.provider_client import Journey, Person, ProviderClient, ProviderError
from relay.accounts.providers import StrangerError, check_person
from relay.config.oidc import OidcSettings
from tests.web.provider import CLIENT, SECRET, Provider, rsa_key, running_provider

JOURNEY = Journey("state", "nonce-canary", "v" * 43, "https://relay.example/login/callback/main")


@pytest.fixture
def provider() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


def settings_of(provider: Provider, **more: Any) -> OidcSettings:
    return OidcSettings(
        name="main", issuer=provider.url, client_id=CLIENT, client_secret=SECRET, **more
    )


def client_of(provider: Provider) -> ProviderClient:
    return ProviderClient(settings_of(provider))


def identify(provider: Provider, client: ProviderClient | None = None) -> Person:
    """Who somebody is that went there and came back."""
    client = client or client_of(provider)
    return client.identify(JOURNEY, provider.authorize(client.leave(JOURNEY))["code"])


def test_a_good_answer_is_believed(provider: Provider) -> None:
    expected = Person(provider.url, "subject-1", "grace@example.com", True)
    assert identify(provider) == expected
    provider.spoil = lambda claims: claims.update(aud=[CLIENT], azp=CLIENT)
    assert identify(provider) == expected


def set_claim(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda claims: claims.update({name: value})


SPOILED: dict[str, Callable[[dict[str, Any]], None]] = {
    "nonce": set_claim("nonce", "another"),
    "no nonce": lambda claims: claims.pop("nonce"),
    "issuer": set_claim("iss", "https://evil.example"),
    "no issuer": lambda claims: claims.pop("iss"),
    "audience": set_claim("aud", "another-client"),
    "audience of several": set_claim("aud", [CLIENT, "another-client"]),
    "authorized party": set_claim("azp", "another-client"),
    "no audience": lambda claims: claims.pop("aud"),
    "expired": lambda claims: claims.update(exp=claims["iat"] - 120),
    "no end": lambda claims: claims.pop("exp"),
    "not yet": lambda claims: claims.update(nbf=claims["iat"] + 300),
    "issued later": lambda claims: claims.update(iat=claims["iat"] + 300),
    "of another token": set_claim("at_hash", "AAAAAAAAAAAAAAAAAAAAAA"),
    "no subject": lambda claims: claims.pop("sub"),
    "empty subject": set_claim("sub", ""),
    "long subject": set_claim("sub", "x" * 256),
}


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_id_token_is_not_believed(provider: Provider, what: str) -> None:
    provider.spoil = SPOILED[what]
    with pytest.raises(ProviderError):
        identify(provider)


def sign_with_secret(one: Provider) -> None:
    one.algorithm, one.signing = "HS256", OctKey.import_key(SECRET)


SIGNATURES: dict[str, Callable[[Provider], Any]] = {
    "another key": lambda one: setattr(one, "signing", rsa_key("another")),
    "a shared secret": sign_with_secret,
    "no key list": lambda one: one.answers.update({"/jwks": {"keys": 5}}),
    "no keys": lambda one: one.answers.update({"/jwks": {"keys": []}}),
    "an endless answer": lambda one: one.answers.update({"/jwks": b"[" * 300_000}),
    "a page": lambda one: one.answers.update({"/token": b"<!doctype html>"}),
    "a list": lambda one: one.answers.update({"/token": []}),
    "no ID token": lambda one: one.answers.update({"/token": {"access_token": "a"}}),
    "half an ID token": lambda one: one.answers.update(
        {"/token": {"access_token": "a", "id_token": "e30.e30"}}
    ),
}


@pytest.mark.parametrize("what", SIGNATURES)
def test_an_unsigned_answer_is_not_believed(provider: Provider, what: str) -> None:
    SIGNATURES[what](provider)
    with pytest.raises(ProviderError):
        identify(provider)


DISCOVERED: dict[str, dict[str, Any]] = {
    "another issuer": {"issuer": "https://evil.example"},
    "no issuer": {"issuer": None},
    "a script": {"authorization_endpoint": "javascript:alert(1)"},
    "a file": {"jwks_uri": "file:///etc/passwd"},
    "nothing": {"token_endpoint": None},
}


@pytest.mark.parametrize("what", DISCOVERED)
def test_a_spoiled_configuration_is_not_believed(provider: Provider, what: str) -> None:
    path = "/.well-known/openid-configuration"
    provider.answers[path] = {**provider.document(path, {}, {})[1], **DISCOVERED[what]}
    with pytest.raises(ProviderError):
        client_of(provider).leave(JOURNEY)


@pytest.mark.parametrize(
    ("verified", "expected"),
    [(True, True), ("true", True), (False, False), (None, False), ("yes", False), (1, False)],
)
@pytest.mark.parametrize("in_token", [True, False])
def test_only_a_clear_word_verifies_an_address(
    provider: Provider, verified: Any, expected: bool, in_token: bool
) -> None:
    provider.verified, provider.in_token = verified, in_token
    assert identify(provider).is_verified is expected


def test_user_information_of_somebody_else_is_not_believed(provider: Provider) -> None:
    provider.in_token = False
    provider.answers["/userinfo"] = {"sub": "somebody else", **provider.address()}
    with pytest.raises(ProviderError):
        identify(provider)


def test_a_code_needs_its_verifier(provider: Provider) -> None:
    client = client_of(provider)
    code = provider.authorize(client.leave(JOURNEY))["code"]
    other = Journey("state", "nonce-canary", "w" * 43, JOURNEY.redirect_uri)
    with pytest.raises(ProviderError):
        client.identify(other, code)


def test_keys_are_read_again_for_an_unknown_one_but_not_often(provider: Provider) -> None:
    client = client_of(provider)
    for _ in range(3):
        identify(provider, client)
    assert provider.asked.count("/jwks") == 1
    provider.key_id = "two"
    for _ in range(3):
        with pytest.raises(ProviderError):
            identify(provider, client)
    assert provider.asked.count("/jwks") == 1  # within a minute of the last time
    assert client._keys is not None
    client._keys = (client._keys[0] - 61, client._keys[1])
    identify(provider, client)
    assert provider.asked.count("/jwks") == 2


def test_no_redirect_is_followed(provider: Provider) -> None:
    with running_provider() as other:
        provider.redirects["/token"] = f"{other.url}/token"
        with pytest.raises(ProviderError):
            identify(provider)
        assert other.asked == []


def test_the_environment_names_no_proxy(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    assert identify(provider).subject == "subject-1"


@pytest.mark.parametrize(
    ("email", "is_verified", "reason"),
    [
        ("a@example.com", True, ""),
        ("a@EXAMPLE.com", True, ""),
        ("a@sub.example.com", True, "domain"),
        ("a@example.com.evil.example", True, "domain"),
        ("a@example.com", False, "unverified"),
        ("", True, "unverified"),
        ("a@example.com\n", True, "unverified"),
    ],
)
def test_people_are_checked(email: str, is_verified: bool, reason: str) -> None:
    settings = settings_of(Provider("https://a.example"), domains=["example.com"])
    person = Person("https://a.example", "1", email, is_verified)
    if not reason:
        check_person(settings, person)
        return
    with pytest.raises(StrangerError) as caught:
        check_person(settings, person)
    assert caught.value.reason == reason
