"""Copies in S3-compatible storage: signatures, complete copies, and every way to fail."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from relay.config import StorageSettings
from relay.secret import Secret
from relay.store import object_storage
from relay.store.object_storage import Signer, StorageError, upload
from tests.fakes.s3 import Bucket, running_bucket

# "Examples: Signature Calculations in AWS Signature Version 4", Amazon S3 API reference.
SIGNER = Signer(
    Secret("AKIAIOSFODNN7EXAMPLE"), Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), "us-east-1"
)
EMPTY = hashlib.sha256(b"").hexdigest()
AMAZON = hashlib.sha256(b"Welcome to Amazon S3.").hexdigest()


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with running_bucket() as bucket:
        yield bucket


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "relay-20260408T120100Z.db"
    file.write_bytes(bytes(range(256)) * 4096)
    return file


def settings(bucket: Bucket, **changes: Any) -> StorageSettings:
    return msgspec.convert(bucket.settings(**changes), StorageSettings)


@pytest.mark.parametrize(
    ("method", "path", "payload", "fields", "signature"),
    [
        pytest.param(
            "GET", "/test.txt", EMPTY, {"range": "bytes=0-9"},
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            id="GET",
        ),
        pytest.param(
            "PUT", "/test%24file.text", AMAZON,
            {"date": "Fri, 24 May 2013 00:00:00 GMT",
             "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            id="PUT",
        ),
    ],
)  # fmt: skip
def test_a_signature_is_that_of_the_published_example(
    method: str, path: str, payload: str, fields: dict[str, str], signature: str
) -> None:
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "x-amz-content-sha256": payload,
        "x-amz-date": "20130524T000000Z",
    } | fields
    value = SIGNER.authorization(method, path, headers, payload)
    assert value.startswith(
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
    )
    assert value.endswith(f",Signature={signature}")


def test_a_copy_is_complete_and_checked(bucket: Bucket, file: Path) -> None:
    name = upload(file, settings(bucket))
    assert name == f"relay/{file.name}"
    assert bucket.objects == {f"/b1/relay/{file.name}": file.read_bytes()}
    assert [line.split()[0] for line in bucket.requests] == ["PUT", "HEAD"]


def test_names_that_need_escapes_are_signed_as_sent(bucket: Bucket, tmp_path: Path) -> None:
    file = tmp_path / "a+b ü.db"
    file.write_bytes(b"x")
    upload(file, settings(bucket, endpoint=bucket.url + "/s3/"))
    assert list(bucket.objects) == ["/s3/b1/relay/a%2Bb%20%C3%BC.db"]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("slow down", "the bucket refused it: 503 SlowDown; Please reduce your request rate."),
        ("early refusal", "404 NoSuchBucket; check backup.s3.bucket"),
        ("cut", "onnection"),
        ("no HTTP", "BadStatusLine: no HTTP answer"),
        ("silent", "does not answer"),
        ("loses an octet", "has 1048575 of 1048576 octets in the bucket"),
    ],
)
def test_a_failed_copy_says_why(
    bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch, fault: str, text: str
) -> None:
    monkeypatch.setattr(object_storage, "_TIMEOUT_SECONDS", 0.3)
    bucket.fault = fault
    with pytest.raises(StorageError) as caught:
        upload(file, settings(bucket))
    message = str(caught.value)
    assert text in message
    assert "canary" not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"secret_key": "other"}, "SignatureDoesNotMatch; check backup.s3.secret_key"),
        ({"region": "us-east-1"}, "SignatureDoesNotMatch; check backup.s3.secret_key and region"),
        ({"access_key": "AKIANOBODY"}, "403 InvalidAccessKeyId; check backup.s3.access_key"),
        ({"access_key": "env:NO_SUCH_NAME"}, "backup.s3.access_key: the environment variable"),
        ({"endpoint": "http://127.0.0.1:1"}, "127.0.0.1:1: Connection refused"),
    ],
)
def test_a_wrong_setting_is_named(
    bucket: Bucket, file: Path, changes: dict[str, str], text: str
) -> None:
    with pytest.raises(StorageError) as caught:
        upload(file, settings(bucket, **changes))
    assert text in str(caught.value)
    assert bucket.objects == {}


def test_plain_http_where_tls_is_configured_is_one_line(bucket: Bucket, file: Path) -> None:
    with pytest.raises(StorageError, match="TLS failed"):
        upload(file, settings(bucket, endpoint=bucket.url.replace("http:", "https:")))


def test_a_file_above_the_limit_is_refused_before_it_is_sent(
    bucket: Bucket, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "_MAX_OCTETS", 1000)
    with pytest.raises(StorageError, match="more than one upload may have"):
        upload(file, settings(bucket))
    assert bucket.requests == []
