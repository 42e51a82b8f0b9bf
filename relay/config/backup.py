"""The settings of scheduled backups, and of their copies in S3-compatible storage.

Each section checks itself, as those of `schema` do. Must not know how a backup is made.
"""

import re
from typing import Final

import msgspec

from relay import secret
from relay.config.checks import check_url
from relay.config.forms import PlainText, Url
from relay.config.values import DurationOrOff
from relay.secret import Secret

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._/-]{0,200}")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_MIN_INTERVAL_SECONDS: Final = 60
_MAX_KEPT: Final = 1000


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class StorageSettings(_Section, frozen=True):
    """A bucket of Amazon S3 or of a service that speaks its API."""

    endpoint: Url
    bucket: PlainText
    access_key: str
    secret_key: str
    prefix: PlainText = ""  # before the name of each copy
    region: PlainText = "us-east-1"  # as in the signature; many services take any

    def __post_init__(self) -> None:
        check_url("endpoint", self.endpoint)
        if not _BUCKET.fullmatch(self.bucket):
            raise ValueError("bucket must be 2 to 63 letters, digits, dots, _ and -")
        if not _PREFIX.fullmatch(self.prefix) or self.prefix.startswith("/"):
            raise ValueError(
                'prefix must be up to 200 letters, digits, . _ - and /, such as "relay/", and not '
                "begin with /"
            )
        if not _REGION.fullmatch(self.region):
            raise ValueError('region must be a name such as "eu-central-1"')
        for name in ("access_key", "secret_key"):
            text = getattr(self, name)
            if text.startswith("$"):
                raise ValueError(f"{name} is taken literally; write env:{text.strip('${}')}")

    def __repr__(self) -> str:
        return f"Storage({self.bucket!r})"  # the rest may hold secrets

    def credentials(self) -> tuple[Secret, Secret]:
        """The access key and the secret key themselves.

        Raises:
            ValueError: a variable or file that one of them names cannot be read; the message
                begins with the name of the setting.
        """
        found = []
        for name in ("access_key", "secret_key"):
            try:
                found.append(secret.resolve(getattr(self, name)))
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return found[0], found[1]


class BackupSettings(_Section, frozen=True):
    """Backups of the database that a server makes by itself."""

    every: DurationOrOff = DurationOrOff("24h")
    keep: int = 7  # the latest ones; older ones are deleted
    path: PlainText = "backups"  # a folder
    s3: StorageSettings | None = None

    def __post_init__(self) -> None:
        if 0 < self.every.seconds < _MIN_INTERVAL_SECONDS:
            raise ValueError('every must be at least "1m", or "off"')
        if not 1 <= self.keep <= _MAX_KEPT:
            raise ValueError(f'keep must be from 1 to {_MAX_KEPT}; every = "off" makes none')
        if not self.path:
            raise ValueError("path must name a folder")
