"""A new machine for the set-up trial: Debian with systemd in namespaces, and a world around it.

The world is a network of its own: a web server with dist/, a way to Debian's packages, Pebble as
the authority, and api.anthropic.com, played by `relay simulate` behind TLS. The machine is at
MACHINE, all of that at WORLD; names are resolved by the machine's /etc/hosts.

    python -m tests.deploy.bare_machine FOLDER     runs in `unshare --net`, until its input ends
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import trustme

MACHINE, WORLD = "10.99.0.2", "10.99.0.1"
NAMES = ("dist.example", "acme.example", "api.anthropic.com")
TOOLS = ("debootstrap", "systemd-nspawn", "pebble", "pebble-challtestsrv", "unshare", "nsenter")
ACME_PORT, APT_PORT, SIMULATOR_PORT = 14000, 3142, 8082
_PEBBLE_MANAGEMENT = "127.0.0.1:15000"
_CABLE = (
    "link set lo up",
    "link add world type veth peer name machine",
    f"addr add {WORLD}/24 dev world",
    "link set world up",
)
_ROOT = Path(__file__).parents[2]


def missing_tools() -> list[str]:
    """What keeps a bare machine from being made here."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    return missing if os.getuid() == 0 else [*missing, "root"]


def make_root(folder: Path) -> None:
    """Install Debian, without Python, into a folder."""
    subprocess.run(
        ["debootstrap", "--variant=minbase", "--include=systemd,systemd-sysv,iproute2",
         "bookworm", str(folder)],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def furnish(root: Path, authority: trustme.CA, root_of_pebble: bytes) -> None:
    """Give the machine its names, its way to packages, and trust in the world's certificates."""
    hosts = f"127.0.0.1 localhost\n{MACHINE} relay.example\n{WORLD} {' '.join(NAMES)}\n"
    (root / "etc/hosts").write_text(hosts)
    (root / "etc/hostname").write_text("relay\n")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").write_text("")
    proxy = f'Acquire::http::Proxy "http://{WORLD}:{APT_PORT}";\n'
    (root / "etc/apt/apt.conf.d/proxy").write_text(proxy)
    trusted = root / "usr/local/share/ca-certificates"
    trusted.mkdir(parents=True, exist_ok=True)
    authority.cert_pem.write_to_path(str(trusted / "world.crt"))
    (trusted / "pebble.crt").write_bytes(root_of_pebble)


@contextlib.contextmanager
def running_machine(folder: Path) -> Iterator[int]:
    """The machine of folder/root in its world; yields the process id of its systemd.

    `folder` also has dist/.
    """
    with contextlib.ExitStack() as stack:
        out = stack.enter_context((folder / "world.log").open("wb"))
        command = ["unshare", "--net", "--mount", sys.executable, "-m", "tests.deploy.bare_machine"]
        world = subprocess.Popen(
            [*command, str(folder)],
            cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out, bufsize=0,
        )  # fmt: skip
        assert world.stdin is not None
        assert world.stdout is not None
        apt = stack.enter_context(_way_to_packages(folder / "apt.sock"))
        assert apt.poll() is None
        try:
            line = world.stdout.readline()
            assert line, (folder / "world.log").read_text()[-4000:]
            yield int(line)
        finally:
            world.stdin.close()
            world.wait(30)
            world.stdout.close()


@contextlib.contextmanager
def _way_to_packages(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A proxy for plain HTTP on a Unix socket, in the network of this process."""
    command = [sys.executable, "-m", "tests.deploy.bare_machine", "--packages", str(path)]
    with subprocess.Popen(command, cwd=_ROOT) as process:
        until = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        try:
            yield process
        finally:
            process.terminate()


def inside(leader: int, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line of a root shell on the machine."""
    enter = ["nsenter", f"--target={leader}", "--mount", "--uts", "--ipc", "--net", "--pid",
             "--root", "--wdns=/root"]  # fmt: skip
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}  # fmt: skip
    return subprocess.run(
        [*enter, "sh", "-c", command],
        input=stdin, capture_output=True, text=True, timeout=300, env=environment,
    )  # fmt: skip


# --- in the world ----------------------------------------------------------------------


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError):
        while octets := await reader.read(65536):
            writer.write(octets)
            await writer.drain()
    writer.close()


async def _joined(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    other: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    await asyncio.gather(_pipe(one[0], other[1]), _pipe(other[0], one[1]))


async def _serve_packages(path: str) -> None:
    """Requests with an absolute URL go to its host; one request a connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, url, _ = head.split(b" ", 2)
        host, _, rest = url.removeprefix(b"http://").partition(b"/")
        other = await asyncio.open_connection(host.decode(), 80)
        lines = [line for line in head.split(b"\r\n")[1:-2] if not line.startswith(b"Connection")]
        first = b"%s /%s HTTP/1.1" % (method, rest)
        other[1].write(b"\r\n".join([first, *lines, b"Connection: close", b"", b""]))
        await _joined((reader, writer), other)

    async with await asyncio.start_unix_server(serve, path):
        await asyncio.Event().wait()


async def _serve_apt(path: str) -> None:
    """Pass the machine's connections on to `_serve_packages`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _joined((reader, writer), await asyncio.open_unix_connection(path))

    await asyncio.start_server(serve, WORLD, APT_PORT)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _pebble(folder: Path, authority: trustme.CA) -> list[list[str]]:
    """The commands of the authority, whose names lead to the machine."""
    issued = authority.issue_cert("acme.example")
    issued.cert_chain_pems[0].write_to_path(str(folder / "pebble.pem"))
    issued.private_key_pem.write_to_path(str(folder / "pebble.key"))
    settings = {
        "listenAddress": f"{WORLD}:{ACME_PORT}",
        "managementListenAddress": _PEBBLE_MANAGEMENT,
        "certificate": str(folder / "pebble.pem"),
        "privateKey": str(folder / "pebble.key"),
        "httpPort": 80,
        "tlsPort": 443,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    names = ["pebble-challtestsrv", "-defaultIPv4", MACHINE, "-defaultIPv6", "", "-http01", "",
             "-https01", "", "-tlsalpn01", "", "-dns01", "127.0.0.1:8053",
             "-management", "127.0.0.1:8055"]  # fmt: skip
    return [names, ["pebble", "-config", str(folder / "pebble.json"),
                    "-dnsserver", "127.0.0.1:8053"]]  # fmt: skip


async def _world(folder: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*NAMES).configure_cert(tls)
    _run("mount", "-t", "tmpfs", "tmpfs", "/run/systemd")  # systemd-nspawn leaves files there
    for command in _CABLE:
        _run("ip", *command.split())
    python = sys.executable
    dist = ["http.server", "8000", "--bind", "127.0.0.1", "--directory", str(folder / "dist")]
    commands = [
        [python, "-m", "relay", "simulate", "--port", str(SIMULATOR_PORT)],
        [python, "-m", *dist],
        *_pebble(folder, authority),
    ]
    processes = [_start(command) for command in commands]
    try:
        furnish(folder / "root", authority, await asyncio.to_thread(_root_of_pebble))
        await _serve_apt(str(folder / "apt.sock"))
        front = await _front(tls)
        assert front
        nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--machine=relay",
                  "--private-network", "--directory", str(folder / "root"),
                  "--boot"]  # fmt: skip
        processes.append(_start(nspawn))
        print(await _booted(processes[-1].pid), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        processes[-1].send_signal(signal.SIGTERM)  # systemd stops its services
        await asyncio.to_thread(processes[-1].wait, 30)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(30)


def _start(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)


def _root_of_pebble() -> bytes:
    """The certificate that a real machine would know as its authority's; it is a new one."""
    context = ssl._create_unverified_context()
    until = time.monotonic() + 10
    while True:
        try:
            url = f"https://{_PEBBLE_MANAGEMENT}/roots/0"
            with urllib.request.urlopen(url, context=context, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            assert time.monotonic() < until, "Pebble does not start"
            time.sleep(0.05)


async def _front(tls: ssl.SSLContext) -> asyncio.Server:
    """Port 443 of the world: dist.example and api.anthropic.com, told apart by their path."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            is_dist = b"host: dist.example" in head.lower()
            port = 8000 if is_dist else SIMULATOR_PORT
            other = await asyncio.open_connection("127.0.0.1", port)
            other[1].write(head)
            await _joined((reader, writer), other)

    return await asyncio.start_server(serve, WORLD, 443, ssl=tls)


def _systemd_of(nspawn: int) -> int | None:
    """The process id of the machine's first process, once it is systemd."""
    for child in Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return None


async def _booted(nspawn: int) -> int:
    """Wait for the machine's systemd; returns its process id."""
    async with asyncio.timeout(60):
        while (leader := _systemd_of(nspawn)) is None:  # noqa: ASYNC110 - nothing says when
            await asyncio.sleep(0.1)
        ready = "until systemctl is-active --quiet basic.target; do sleep 0.1; done"
        assert (await asyncio.to_thread(inside, leader, ready)).returncode == 0
    _run("ip", "link", "set", "machine", "netns", str(leader))
    done = inside(leader, f"ip link set lo up; ip addr add {MACHINE}/24 dev machine; "
                          "ip link set machine up")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return leader


if __name__ == "__main__":
    if sys.argv[1] == "--packages":
        asyncio.run(_serve_packages(sys.argv[2]))
    else:
        asyncio.run(_world(Path(sys.argv[1])))
