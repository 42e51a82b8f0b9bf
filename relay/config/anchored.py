"""The names of files in relay.toml, made absolute: they are relative to its folder.

Decides which settings name files. Must not know whether the files are there.
"""

from pathlib import Path

import msgspec

from relay.config.alerts import AlertSettings
from relay.config.backup import BackupSettings
from relay.config.oidc import OidcSettings
from relay.config.payments import PaymentsSettings
from relay.config.schema import ServerSettings, Settings, UpstreamSettings
from relay.config.tls_schema import AcmeSettings, TlsSettings
from relay.config.traces import TracesSettings

_replace = msgspec.structs.replace


def anchored(settings: Settings, folder: Path) -> Settings:
    """The same settings with absolute names of files; `folder` is the one of relay.toml."""
    names = _Names(folder)
    secret, log, web = names.secret, settings.log, settings.web
    return _replace(
        settings,
        server=names.server(settings.server),
        acme=names.acme(settings.acme),
        log=_replace(log, file=names.file(log.file) if log.file else ""),
        database=_replace(settings.database, path=names.file(settings.database.path)),
        ledger=_replace(settings.ledger, url=secret(settings.ledger.url)),
        upstream=[names.upstream(one) for one in settings.upstream],
        responses=_replace(settings.responses, key=secret(settings.responses.key)),
        backup=names.backup(settings.backup),
        alert=[names.alert(one) for one in settings.alert],
        mail=_replace(settings.mail, password=secret(settings.mail.password)),
        web=_replace(web, oidc=[names.provider(one) for one in web.oidc]),
        traces=names.traces(settings.traces),
        payments=names.payments(settings.payments),
    )


class _Names:
    """Names of files below one folder; an absolute name stays as it is."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def file(self, name: str) -> str:
        return str(self._folder / name)

    def file_or_none(self, name: str | None) -> str | None:
        return None if name is None else self.file(name)

    def secret(self, text: str) -> str:
        """A secret, which may be `file:` and a name."""
        return "file:" + self.file(text[5:]) if text.startswith("file:") else text

    def server(self, one: ServerSettings) -> ServerSettings:
        if isinstance(one.tls, TlsSettings):
            return _replace(one, tls=self._pair(one.tls))
        if isinstance(one.tls, list):
            return _replace(one, tls=[self._pair(pair) for pair in one.tls])
        return one

    def _pair(self, one: TlsSettings) -> TlsSettings:
        return TlsSettings(cert=self.file(one.cert), key=self.file(one.key))

    def acme(self, one: AcmeSettings) -> AcmeSettings:
        return _replace(one, ca=self.file_or_none(one.ca), eab_key=self.secret(one.eab_key))

    def upstream(self, one: UpstreamSettings) -> UpstreamSettings:
        return _replace(
            one,
            api_key=self.secret(one.api_key),
            ca=self.file_or_none(one.ca),
            egress=None if one.egress is None else self.secret(one.egress),
        )

    def backup(self, one: BackupSettings) -> BackupSettings:
        s3 = one.s3 and _replace(
            one.s3,
            access_key=self.secret(one.s3.access_key),
            secret_key=self.secret(one.s3.secret_key),
        )
        return _replace(one, path=self.file(one.path), s3=s3)

    def alert(self, one: AlertSettings) -> AlertSettings:
        return _replace(
            one,
            url=self.secret(one.url),
            secret=self.secret(one.secret),
            password=self.secret(one.password),
        )

    def provider(self, one: OidcSettings) -> OidcSettings:
        secret, ca = self.secret(one.client_secret), self.file_or_none(one.ca)
        return _replace(one, client_secret=secret, ca=ca)

    def payments(self, one: PaymentsSettings) -> PaymentsSettings:
        key, webhook = self.secret(one.stripe_key), self.secret(one.webhook_secret)
        return _replace(one, stripe_key=key, webhook_secret=webhook)

    def traces(self, one: TracesSettings) -> TracesSettings:
        headers = {name: self.secret(text) for name, text in one.headers.items()}
        return _replace(one, headers=headers)
