"""An upstream's setup has what its settings name, and tells what has changed since."""

from pathlib import Path

import pytest
import trustme

from relay import config
from relay.config import ConfigError
from relay.pool.setup import UpstreamSetup, read_setups

KEY = "sk-first"
PROXY = "http://user:pass@proxy.example:3128"
LIMITS = 'limits = [{ requests = 5, per = "1h" }]\n'


class Files:
    """The files of an operator's upstream, and settings that name them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("key", KEY)
        self.write("proxy", PROXY)
        self.write_ca()

    def write(self, name: str, content: str) -> None:
        (self.folder / name).write_text(content, encoding="utf-8")

    def write_ca(self) -> None:
        trustme.CA().cert_pem.write_to_path(str(self.folder / "ca"))

    def settings(self, text: str = "", url: str = "https://a.example") -> config.Settings:
        """One upstream; `text` is the rest of its section."""
        lines = f'[[upstream]]\nname = "a"\nbase_url = "{url}"\n'
        if "api_key" not in text:
            lines += f'api_key = "file:{self.folder}/key"\n'
        path = self.folder / "relay.toml"
        path.write_text(lines + text.replace("DIR", str(self.folder)), encoding="utf-8")
        return config.load(path)

    def read(
        self, text: str = "", before: UpstreamSetup | None = None, url: str = "https://a.example"
    ) -> UpstreamSetup:
        known = None if before is None else {before.settings.name: before}
        [setup] = read_setups(self.settings(text, url), known)
        return setup


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


EVERYTHING = 'egress = "file:DIR/proxy"\nca = "DIR/ca"\n' + LIMITS


def test_a_setup_has_the_content_of_what_its_settings_name(files: Files) -> None:
    setup = files.read(EVERYTHING)
    assert setup.credential.reveal() == KEY
    assert setup.proxy == config.ProxyUrl.parse(PROXY, "egress")
    assert setup.ca == (files.folder / "ca").read_bytes()
    assert setup.tls is not None
    assert len(setup.tls.get_ca_certs()) == 1
    assert setup.limits is not None
    assert [limit.name for limit in setup.limits.limits] == ["5 requests per hour"]
    assert setup.vendor.name == "generic"


def test_a_setup_shows_no_secret(files: Files) -> None:
    assert repr(files.read(EVERYTHING)) == "<UpstreamSetup a>"


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://a.example", "a.example", 443),
        ("http://a.example/anthropic", "a.example", 80),
        ("https://a.example:8443", "a.example", 8443),
        ("http://[::1]:9000", "::1", 9000),
    ],
)
def test_the_origin_is_the_address_of_the_base_url(
    files: Files, url: str, host: str, port: int
) -> None:
    setup = files.read('egress = "file:DIR/proxy"\n', url=url)
    origin = setup.origin
    assert (origin.host, origin.port, origin.egress) == (host, port, setup.proxy)
    assert origin.tls is setup.tls
    assert (origin.tls is not None) == url.startswith("https")
    times = setup.settings.timeouts
    assert (origin.connect_time, origin.first_byte_time) == (times.connect, times.first_byte)
    assert (origin.silence_time, origin.idle_time) == (times.silence, times.idle)


def test_a_setup_read_again_keeps_its_context_and_limits(files: Files) -> None:
    before = files.read(EVERYTHING)
    again = files.read(EVERYTHING + "weight = 2\n", before)
    assert again.settings.weight == 2
    assert again.tls is before.tls
    assert again.limits is before.limits
    assert again.new_secrets(before) == []


def test_other_limits_are_compiled_anew(files: Files) -> None:
    before = files.read(LIMITS)
    more = files.read(LIMITS.replace("5", "6"), before)
    assert more.limits is not None
    assert more.limits.limits[0].size == 6
    assert files.read("", more).limits is None


@pytest.mark.parametrize(
    ("changed", "name"),
    [(["key"], "api_key"), (["proxy"], "egress"), (["ca"], "ca"), (["key", "proxy", "ca"], "")],
    ids=["credential", "proxy", "certificates", "all"],
)
def test_a_rotated_file_is_named_by_its_setting(
    files: Files, changed: list[str], name: str
) -> None:
    before = files.read(EVERYTHING)
    for file in changed:
        if file == "ca":
            files.write_ca()
        else:
            files.write(file, {"key": "sk-second", "proxy": "socks5://other.example:1080"}[file])
    after = files.read(EVERYTHING, before)
    assert after.new_secrets(before) == ([name] if name else ["api_key", "egress", "ca"])
    assert (after.tls is before.tls) == ("ca" not in changed)


def test_a_value_that_the_settings_state_is_no_rotation(files: Files) -> None:
    trustme.CA().cert_pem.write_to_path(str(files.folder / "other"))
    before = files.read(f'api_key = "{KEY}"\nca = "DIR/ca"\n')
    stated = f'api_key = "sk-second"\negress = "{PROXY}"\nca = "DIR/other"\n'
    after = files.read(stated, before)
    assert after.new_secrets(before) == []
    assert after.tls is not before.tls
    assert files.read(f'api_key = "{KEY}"\n', after).new_secrets(after) == []


def test_an_upstream_stays_in_place_by_its_name_and_address(files: Files) -> None:
    setup = files.read()
    assert files.read("weight = 3\n", setup).is_same_place(setup)
    assert not files.read("", setup, url="https://b.example").is_same_place(setup)
    other = config.parse(
        {"upstream": [{"name": "b", "base_url": "https://a.example", "api_key": "k"}]}
    )
    assert not read_setups(other)[0].is_same_place(setup)


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        pytest.param('api_key = "file:DIR/none"\n', "upstream[0]", "cannot read", id="credential"),
        pytest.param('ca = "DIR/none"\n', "upstream[0]", "ca: there are no", id="no-file"),
        pytest.param('ca = "DIR/key"\n', "upstream[0]", "ca: there are no", id="no-certificate"),
        pytest.param(
            'egress = "file:DIR/none"\n', "upstream[0].egress", "cannot read", id="proxy-file"
        ),
        pytest.param(
            'egress = "file:DIR/key"\n', "upstream[0].egress", "must be http://", id="proxy-url"
        ),
    ],
)
def test_what_cannot_be_read_is_named_by_its_path(
    files: Files, text: str, path: str, reason: str
) -> None:
    settings = files.settings(text)
    with pytest.raises(ConfigError) as refused:
        read_setups(settings)
    assert refused.value.path == path
    assert reason in refused.value.reason
    assert KEY not in str(refused.value)
