"""install.sh as root, in namespaces of its own, with a stand-in for systemctl that starts it."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .test_install_script import ROOT, SCRIPT, write_archive

PYTHON = "/usr/bin/python3"  # one that the service's user can run
SITE = [path for path in sys.path if path.endswith("site-packages")]

NAMESPACES = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]

SYSTEMCTL = """#!/bin/sh
echo "$@" >>{log}/systemctl
unit=/etc/systemd/system/relay.service
if [ "$1" = show ] && [ -e {log}/err ]; then echo active; fi
if [ "$1" = enable ] && [ ! -e {log}/err ]; then
    user=$(sed -n 's/^User=//p' $unit)
    command=$(sed -n 's/^ExecStart=//p' $unit)
    cd / && setsid runuser -u "$user" -- $command </dev/null >>{log}/out 2>>{log}/err &
fi
"""

INSIDE = """set -eu
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /usr/local/bin
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system
cp -a /etc {log}/etc
mount --bind {log}/etc /etc
mkdir -p /etc/systemd/system
export PATH={log}/bin:/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
install() {{
    sh {script} --dist "$1" --python {python} --url http://127.0.0.1:{port} \\
        --listen 127.0.0.1:{port} --email a@example.com
}}
install {log}/one >{log}/key
for _ in $(seq 200); do
    if grep -q 'listens on' {log}/err; then break; fi
    sleep 0.1
done
install {log}/two
relay upstreams --config /etc/relay/relay.toml
cp /etc/systemd/system/relay.service {log}/unit
sed -i '/^listen/a tls = "auto"\\ndomains = ["relay.example"]' /etc/relay/relay.toml
relay service install --config /etc/relay/relay.toml
sed -i '/^tls = "auto"/d; /^domains/d' /etc/relay/relay.toml
relay service install --config /etc/relay/relay.toml
stat -c '%U %a %n' /etc/relay /etc/relay/relay.toml /var/lib/relay /var/lib/relay/relay.db
"""


def usable() -> bool:
    """Whether the tests run as root, may mount, and the service's user can read this tree."""
    if os.getuid() != 0 or not shutil.which("unshare") or not shutil.which("runuser"):
        return False
    code = f"import sys; sys.path[:0] = {[str(ROOT), *SITE]!r}; import relay.app"
    command = [*NAMESPACES, "runuser", "-u", "nobody", "--", PYTHON, "-c", code]
    return subprocess.run(command, cwd="/", capture_output=True).returncode == 0


def test_a_service_is_installed_runs_and_is_upgraded(tmp_path: Path) -> None:
    """As the user `relay` in unit, files and commands; the second install hands over."""
    if not usable():
        pytest.skip("needs root, unshare, and /usr/bin/python3 of this tree")
    for name, more in (("one", ""), ("two", "# newer")):
        (tmp_path / name).mkdir()
        write_archive(tmp_path / name, [str(ROOT), *SITE], more)
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "systemctl"
    stub.write_text(SYSTEMCTL.format(log=tmp_path))
    stub.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    script = INSIDE.format(log=tmp_path, script=SCRIPT, python=PYTHON, port=port)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*NAMESPACES, "sh", "-c", script],
        cwd="/", capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip
    said = (tmp_path / "err").read_text() if (tmp_path / "err").exists() else ""
    assert done.returncode == 0, done.stderr + said
    assert (tmp_path / "key").read_text().startswith("sk-llmapi-")
    unit = (tmp_path / "unit").read_text()
    assert "\nUser=relay\n" in unit
    assert "DynamicUser" not in unit
    assert "\nExecStart=/opt/relay/current/bin/relay serve --takeover " in unit
    assert "relay 0.1.0 is installed; none is running.\n" in done.stderr
    assert "relay 0.1.0 serves.\n" in done.stderr
    assert "has taken over" in said
    assert "root 750 /etc/relay\nroot 640 /etc/relay/relay.toml\n" in done.stdout
    assert "relay 750 /var/lib/relay\nrelay 600 /var/lib/relay/relay.db\n" in done.stdout
    assert done.stdout.count("opened by the next `systemctl restart relay`") == 1
    asked = (tmp_path / "systemctl").read_text()
    assert "\ndisable --now relay-redirect.socket\n" in asked
    assert "\nenable relay.socket relay.service\nstart relay.socket relay.service\n" in asked
