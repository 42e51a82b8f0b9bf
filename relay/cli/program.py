"""The command line: what can be typed, what is printed, and how an error is told.

Every error is one line on standard error: status 2 when the command or relay.toml is
wrong, 1 for the rest. Whatever only some commands need (the server, `relay.cli.accounts`,
`relay.cli.upstreams`) is imported when it is asked for, so that `serve` is ready soon.
"""

import ipaddress
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from relay import config

_DEFAULT_CONFIG = "relay.toml"


class Failure(click.ClickException):
    """An error that is told in its own words."""


class Misuse(Failure):
    """The command or relay.toml is at fault."""

    exit_code = 2


def _open_standard_streams() -> None:
    """A service may be started without them; the loop would take their numbers for sockets."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


class _Program(click.Group):
    """The whole command: tells every error in one line, and never shows a traceback."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> NoReturn:
        _open_standard_streams()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal that lacks … still gets the rest
                stream.reconfigure(errors="replace")
        extra["standalone_mode"] = False
        try:
            status = super().main(args, *rest, **extra)
        except NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx else "relay"
            tell(f"relay: {error.format_message()} See `{command} --help`.")
            sys.exit(2)
        except click.ClickException as error:
            tell(error.format_message())
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(130)
        except Exception as error:  # what nobody thought of is told too
            tell(f"relay: internal error: {type(error).__name__}: {error} ({_origin(error)})")
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands:
            _add_the_rest()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        _add_the_rest()
        return super().list_commands(ctx)


def _add_the_rest() -> None:
    """Importing them adds them to `main`."""
    import relay.cli.accounts
    import relay.cli.upstreams  # noqa: F401


def tell(message: str) -> None:
    click.echo(" ".join(message.split()), err=True)


def _origin(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "nowhere"
    return f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"


def _remember_config(ctx: click.Context, _: click.Parameter, value: str | None) -> None:
    if value is not None:
        ctx.ensure_object(dict)["config"] = value  # the innermost comes last, and wins


with_config = click.option(
    "--config",
    metavar="PATH",
    expose_value=False,
    callback=_remember_config,
    help=f"The settings file.  [default: ./{_DEFAULT_CONFIG}]",
)
with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _config_path() -> str:
    return str(click.get_current_context().ensure_object(dict).get("config", _DEFAULT_CONFIG))


def load_settings() -> config.Settings:
    path = _config_path()
    try:
        return config.load(path)
    except config.ConfigError as error:
        if error.path:
            raise Misuse(f"{path}: {error}") from None
        hint = "" if Path(path).exists() else "; --config PATH names another file"
        raise Misuse(f"relay: {error.reason}{hint}") from None


@click.group(cls=_Program, name="relay", context_settings={"help_option_names": ["-h", "--help"]})
@with_config
@click.version_option(package_name="relay", prog_name="relay")
def main() -> None:
    """Relay: one endpoint in front of many large-language-model upstreams."""


@main.command()
@with_config
def serve() -> int:
    """Serve with the settings in relay.toml until SIGTERM."""
    settings = load_settings()
    _check_references(settings)
    from relay import app

    return _until_stopped(lambda: app.serve(settings))


@main.command()
@with_config
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the relay.")
def demo(port: int | None) -> int:
    """Try it: a simulated upstream, the relay, and one key."""
    settings = load_settings()
    from relay import app

    return _until_stopped(lambda: app.demo(settings, port))


@main.command()
@with_config
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), required=True, help="Port to listen on.")
def simulate(host: str, port: int) -> int:
    """Run the simulated upstream alone."""
    from relay import app

    return _until_stopped(lambda: app.simulate(host, port))


def _until_stopped(run: Callable[[], int]) -> int:
    """Run a server; a database or an address that it cannot have becomes an error."""
    from relay.store.database import StoreError

    try:
        return run()
    except config.ConfigError as error:
        raise Misuse(f"{_config_path()}: {error}") from None
    except (StoreError, OSError) as error:
        raise Failure(f"relay: {error}") from None


@main.command()
@with_config
@with_json
def check(as_json: bool) -> None:
    """Check relay.toml and show every setting that is in force."""
    settings = load_settings()
    _check_references(settings)
    from relay.net import tls as certificates

    try:
        certificates.check(settings)
    except config.ConfigError as error:
        raise Misuse(f"{_config_path()}: {error}") from None
    for what in ("upstream", "model"):
        if not getattr(settings, what):
            tell(f"{_config_path()}: there is no [[{what}]], so no request can be served")
    for name in _unserved(settings):
        tell(f"{_config_path()}: no upstream serves {name} under its own name; give it routes")
    if _is_open(settings.server.admin_listen):
        tell(
            f"{_config_path()}: server.admin_listen: {settings.server.admin_listen} is not for "
            "this machine alone, and whoever reaches it may pause upstreams: no key is asked for"
        )
    used = _vendors_used(settings)
    for vendor in settings.vendor:
        if vendor.terms and vendor.name in used:
            tell(f"upstream {', '.join(used[vendor.name])}: {vendor.terms}")
    tree = config.effective(settings)
    if as_json:
        print_json({"ok": True, "settings": tree})
        return
    counts = ", ".join(
        f"{len(tree[name])} {name}{'' if len(tree[name]) == 1 else 's'}"
        for name in ("upstream", "model", "plan")
    )
    click.echo(f"ok: {_config_path()} ({counts})")
    of_interest = {*used, *_vendors_changed(settings)}
    tree["vendor"] = [
        {**vendor, "rules": len(vendor["rules"])}
        for vendor in tree["vendor"]
        if vendor["name"] in of_interest
    ]
    for path, value in _dotted(tree):
        click.echo(f"{path} = {json.dumps(value, ensure_ascii=False)}")


def _is_open(admin_listen: config.AddressOrNone) -> bool:
    """Whether an address may be reached from elsewhere; of a name nobody knows."""
    if not admin_listen or admin_listen.path is not None:
        return False
    if admin_listen.host.lower() == "localhost":
        return False
    try:
        return not ipaddress.ip_address(admin_listen.host).is_loopback
    except ValueError:
        return True


def _vendors_used(settings: config.Settings) -> dict[str, list[str]]:
    """Names of vendors, each with those of its upstreams."""
    used: dict[str, list[str]] = {}
    for upstream in settings.upstream:
        used.setdefault(config.vendor_of(settings, upstream).name, []).append(upstream.name)
    return used


def _vendors_changed(settings: config.Settings) -> list[str]:
    """Names of the vendors that relay.toml has, or has otherwise than they are shipped."""
    from relay.config.vendors import shipped

    return [vendor.name for vendor in settings.vendor if vendor not in shipped()]


def _unserved(settings: config.Settings) -> list[str]:
    """Models without routes that the vendors of all upstreams do not have."""
    vendors = [config.vendor_of(settings, upstream) for upstream in settings.upstream]
    return [
        model.id
        for model in settings.model
        if vendors
        and model.routes is None
        and not any(config.serves(vendor, model.id) for vendor in vendors)
    ]


def _check_references(settings: config.Settings) -> None:
    wrong = [f"{_config_path()}: {path}: {reason}" for path, reason in _unreadable(settings)]
    for line in wrong[:-1]:
        tell(line)
    if wrong:
        raise Misuse(wrong[-1])


def _unreadable(settings: config.Settings) -> Iterator[tuple[str, str]]:
    """What relay.toml names outside itself and cannot be had."""
    for number, upstream in enumerate(settings.upstream):
        try:
            upstream.credential()
        except ValueError as error:
            yield f"upstream[{number}].api_key", str(error)
        try:
            upstream.proxy()
        except ValueError as error:
            yield f"upstream[{number}].egress", str(error)
    files = [(f"upstream[{number}].ca", one.ca) for number, one in enumerate(settings.upstream)]
    if settings.server.tls is not None:
        files += [
            ("server.tls.cert", settings.server.tls.cert),
            ("server.tls.key", settings.server.tls.key),
        ]
    for path, file in files:
        try:
            if file is not None:
                Path(file).open("rb").close()
        except OSError as error:
            yield path, f"cannot read {file}: {error.strerror}"


def _dotted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _dotted(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, inner in enumerate(value):
            yield from _dotted(inner, f"{path}[{number}]")
    else:
        yield path, value


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
