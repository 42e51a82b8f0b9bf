"""`relay service`: the units of systemd, and what a service manager is told."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import done, refused
from tests.durability.process import write_settings
from tests.fakes.until import until

TOML = """
[server]
listen = ["127.0.0.1:8080", "[::1]:8443"]
[database]
path = "/var/lib/relay/relay.db"
"""
AUTO = TOML.replace('8443"]', '8443"]\ntls = "auto"\ndomains = ["a.example"]')
UNITS = ("relay.socket", "relay.service")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to install below; ./relay.toml fits a unit."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relay.toml").write_text(TOML)
    return tmp_path / "root"


def test_the_units_are_written_shown_and_removed(root: Path) -> None:
    folder = root / "etc/systemd/system"
    assert "not installed" in refused(1, "service", "status", "--root", str(root))
    done("service", "install", "--root", str(root))
    written = (folder / "relay.socket").read_text()
    assert "ListenStream=127.0.0.1:8080\nListenStream=[::1]:8443\n" in written
    printed = done("service", "install", "--dry-run")
    for name in UNITS:
        assert (folder / name).read_text() in printed
    assert "Installed in" in done("service", "status", "--root", str(root))
    done("service", "uninstall", "--root", str(root))
    assert list(folder.iterdir()) == []
    assert "not installed" in refused(1, "service", "uninstall", "--root", str(root))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs the package systemd")
@pytest.mark.parametrize("text", [TOML, AUTO], ids=["clear", "auto"])
def test_systemd_accepts_the_units_and_rates_them_safe(root: Path, text: str) -> None:
    (root.parent / "relay.toml").write_text(text)
    done("service", "install", "--root", str(root), "--program", "/bin/true")
    folder = root / "etc/systemd/system"
    paths = [str(folder / name) for name in sorted(os.listdir(folder))]
    verified = subprocess.run(
        ["systemd-analyze", "verify", *paths], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=20",
        str(folder / UNITS[1]),
    ]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout[-200:]


@pytest.mark.parametrize(
    ("old", "new", "arguments", "error"),
    [
        pytest.param(
            '"[::1]:8443"]',
            '"[::1]:8443"]\ntls = "auto"\ndomains = ["a.example"]\n'
            'redirect_listen = ["a.example:80"]',
            (),
            "server.redirect_listen: a.example:80: a unit",
            id="a-redirect",
        ),
        pytest.param("127.0.0.1:8080", "localhost:8080", (), "needs an IP address", id="a-name"),
        pytest.param("127.0.0.1:8080", "127.0.0.1:0", (), "needs the number of a port", id="0"),
        pytest.param("/var/lib/relay/", "/srv/", (), "install it with --user NAME", id="folder"),
        pytest.param("", "", ("--program", "/a b"), "has no spaces", id="a-program"),
    ],
)
def test_settings_that_fit_no_unit_are_refused(
    root: Path, old: str, new: str, arguments: tuple[str, ...], error: str
) -> None:
    if old:
        (root.parent / "relay.toml").write_text(TOML.replace(old, new))
    assert error in refused(2, "service", "install", "--dry-run", *arguments)


def test_plain_http_has_a_socket_unit_of_its_own(root: Path) -> None:
    """So that the service starts where another program has port 80."""
    path = root.parent / "relay.toml"
    path.write_text(AUTO)
    done("service", "install", "--root", str(root), "--program", "/bin/true")
    folder = root / "etc/systemd/system"
    written = (folder / "relay-redirect.socket").read_text()
    assert "ListenStream=0.0.0.0:80\nListenStream=[::]:80\nFileDescriptorName=redirect\n" in written
    service = (folder / "relay.service").read_text()
    assert "Sockets=relay.socket relay-redirect.socket\n" in service
    assert "Requires=relay.socket\n" in service
    path.write_text(TOML)
    done("service", "install", "--root", str(root))
    assert sorted(os.listdir(folder)) == sorted(UNITS)
    path.write_text(AUTO)
    done("service", "install", "--root", str(root))
    done("service", "uninstall", "--root", str(root))
    assert os.listdir(folder) == []


def test_a_named_user_writes_where_the_database_is(root: Path) -> None:
    (root.parent / "relay.toml").write_text(TOML.replace("/var/lib/relay/", "/srv/relay/"))
    printed = done("service", "install", "--dry-run", "--user", "relay")
    assert "User=relay\n" in printed
    assert "ReadWritePaths=/srv/relay\n" in printed


@pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs this machine")
@pytest.mark.parametrize("command", ["install", "status", "uninstall"])
def test_without_systemd_the_error_says_what_to_do(root: Path, command: str) -> None:
    folder = root.parent / "unused"
    done("service", "install", "--root", str(folder))
    if command == "install":
        assert "--dry-run prints the units" in refused(1, "service", "install")
    else:
        assert "not installed" in refused(1, "service", command)


# --- what the service manager gets -----------------------------------------------------


async def test_the_service_manager_hears_of_every_step(tmp_path: Path) -> None:
    """Ready, fed watchdog, reload, end; and the admin listener is a socket that was passed."""
    write_settings(tmp_path, "http://127.0.0.1:9")
    path = tmp_path / "relay.toml"
    path.write_text(path.read_text().replace('admin_listen = ""', 'admin_listen = "127.0.0.1:1"'))
    code = (
        "import os, sys; pid = str(os.getpid());"
        "os.environ.update(LISTEN_PID=pid, LISTEN_FDS='2', LISTEN_FDNAMES='listen:admin',"
        " WATCHDOG_PID=pid, WATCHDOG_USEC='300000');"
        "fds = [int(a) for a in sys.argv[1:]]; fds = [os.dup(os.dup(fd)) for fd in fds];"
        "[os.dup2(fd, 3 + n) for n, fd in enumerate(os.dup(os.dup(fd)) for fd in fds)];"
        "os.execv(sys.executable, [sys.executable, '-m', 'relay', 'serve'])"
    )
    messages: list[bytes] = []
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as listen,
        socket.create_server(("127.0.0.1", 0)) as admin,
        (tmp_path / "err").open("wb") as err,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
            [sys.executable, "-c", code, str(listen.fileno()), str(admin.fileno())],
            cwd=tmp_path,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
            pass_fds=[listen.fileno(), admin.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=err,
        )

        async def heard(start: bytes) -> bytes:
            """The next message that begins so."""
            async with asyncio.timeout(20):
                while True:
                    messages.append(await asyncio.get_running_loop().sock_recv(manager, 1000))
                    if messages[-1].startswith(start):
                        return messages[-1]

        try:
            ready = await heard(b"READY=1\nSTATUS=relay ")
            assert str(listen.getsockname()[1]).encode() in ready
            assert await heard(b"WATCHDOG=1")
            reader, writer = await asyncio.open_connection(*admin.getsockname()[:2])
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert b" 401 " in await reader.readline()
            writer.close()
            process.send_signal(signal.SIGHUP)
            reloading = await heard(b"RELOADING=1\nMONOTONIC_USEC=")
            assert abs(int(reloading.partition(b"USEC=")[2]) / 1e6 - time.monotonic()) < 10
            assert await heard(b"READY=1")
            process.terminate()
            assert await heard(b"STOPPING=1")
            await until(lambda: process.poll() is not None)
            assert process.returncode == 0
        finally:
            process.kill()
            process.wait()
