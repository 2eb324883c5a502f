"""`oban web`: serves the dashboard."""

import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from oban.cli import options as setting_options
from oban.cli import target as targets
from oban.cli.instance import Instance
from oban.cli.logs import Console
from oban.client import Oban
from oban.errors import ConfigError

if TYPE_CHECKING:
    from oban.web import Authorize

logger = logging.getLogger("oban.web")

#: The options that are settings as well, whose names begin with `web_`.
DEFAULTS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 4010,
    "password_file": None,
    "authorize": None,
    "read_only": False,
    "hide": (),
    "root_path": "",
}
EXTRA = ("starlette", "jinja2", "uvicorn", "sse_starlette", "python_multipart", "orjson")
_INSTALL = "The dashboard needs more packages: pip install 'oban-sqlalchemy[web]'"
_OPEN = (
    "{host} can be reached from other machines: use --password-file or --authorize to say who may see the"
    " dashboard, or --read-only --allow-anyone if everybody may"
)


@click.command()
@click.argument("targets", metavar="[TARGET]...", nargs=-1)
@click.option(
    "--app",
    multiple=True,
    metavar="TARGET",
    help="The application's own Oban, or a function that returns it, such as app.jobs:oban. Repeat it for a"
    " dashboard of several.",
)
@setting_options.add("database_url")
@click.option("--prefix", multiple=True, metavar="SCHEMA", help="The schema of the tables. Can be repeated.")
@click.option("--name", multiple=True, help="The name of the instance. Can be repeated.")
@click.option(
    "--host",
    metavar="ADDRESS",
    help="The address to listen on; 0.0.0.0 for requests from other machines."
    f"  [default: {DEFAULTS['host']}]",
)
@click.option(
    "--port",
    type=click.IntRange(0, setting_options.MAX_PORT),
    help=f"The port to listen on; 0 for a free one.  [default: {DEFAULTS['port']}]",
)
@click.option(
    "--password-file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="A file with a line USER:PASSWORD for each user, who may do everything.",
)
@click.option(
    "--authorize",
    metavar="TARGET",
    help="A function that decides who may see and do what, such as app.users:authorize.",
)
@click.option("--read-only", is_flag=True, help="Nobody may change anything.")
@click.option("--hide", multiple=True, metavar="FIELD", help="Hide args, meta, errors, recorded or log.")
@click.option("--allow-anyone", is_flag=True, help="With --read-only: everybody may see the dashboard.")
@click.option("--root-path", metavar="PATH", help="The path at which a reverse proxy serves the dashboard.")
@click.option(
    "--forwarded-allow-ips",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESSES",
    help="Reverse proxies whose X-Forwarded headers are believed, separated by commas.",
)
@setting_options.one("log_level")
@setting_options.one("log_format")
def web(
    targets: tuple[str, ...],
    app: tuple[str, ...],
    prefix: tuple[str, ...],
    name: tuple[str, ...],
    database_url: str | None,
    config: str | None,
    log_level: str | None,
    log_format: str | None,
    **options: Any,
) -> None:
    """Serve the dashboard until SIGTERM or Ctrl-C.

    By default, only browsers on this machine can see it, and may do everything. A dashboard for others needs
    --password-file or --authorize. TARGET is the same as --app.
    """
    for each in targets:
        setting_options.check_target(each)
    app = (*targets, *app)
    try:
        from oban.cli.web_server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise click.ClickException(_INSTALL) from None
    if app and (prefix or name):
        raise click.UsageError("--prefix and --name are options of the Oban that --app names.")
    used = {"database_url": database_url, "log_level": log_level, "log_format": log_format}
    settings = [
        setting_options.load(
            setting_options.arguments({**used, "app": each, "prefix": schema, "name": instance}), config
        )
        for each, schema, instance in itertools.product(app or (None,), prefix or (None,), name or (None,))
    ]
    instances = [Instance.of(each) for each in settings]
    values = settings[0].values
    Console(values.get("log_level", "info"), values.get("log_format", "text"), "").apply()
    options |= _with_settings(options, values)
    sys.path[:0] = [folder for folder in instances[0].folders if folder not in sys.path]
    authorize = _authorize(**{key: options.pop(key) for key in _OF_ACCESS}, host=options["host"])
    serve(lambda: _clients(instances), authorize, **options)


_OF_ACCESS = ("password_file", "authorize", "read_only", "hide", "allow_anyone")


def _with_settings(options: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are settings as well. An option that is used takes precedence over its setting."""
    used = {
        key: options[key] for key in DEFAULTS if options[key] not in (None, ()) and options[key] is not False
    }
    settings = {key: values[f"web_{key}"] for key in DEFAULTS if f"web_{key}" in values}
    if "password_file" in used or "authorize" in used:
        # One of them takes the place of the other, too.
        settings = {key: each for key, each in settings.items() if key not in ("password_file", "authorize")}
    found = {**DEFAULTS, **settings, **used}
    # What is hidden by one of them stays hidden.
    found["hide"] = (*settings.get("hide", ()), *used.get("hide", ()))
    return found


async def _clients(instances: Iterable[Instance]) -> list[Oban]:
    # They are not started: a database that is away, or has no tables, is what the pages say.
    return [
        await targets.load(each.app) if each.app else Oban(each.database_url or "", **each.options)
        for each in instances
    ]


def _authorize(
    password_file: str | None,
    authorize: str | None,
    read_only: bool,
    hide: tuple[str, ...],
    allow_anyone: bool,
    host: str,
) -> "Authorize | None":
    """Who may see and do what, by the options."""
    from oban.web import Access, basic_auth
    from oban.web.authorization import is_loopback, not_local, why_not_local

    if password_file and authorize:
        raise click.UsageError("--password-file and --authorize exclude each other.")
    if allow_anyone and (password_file or authorize):
        raise click.UsageError("--allow-anyone cannot be combined with --password-file or --authorize.")
    if allow_anyone and not read_only:
        raise click.UsageError("--allow-anyone needs --read-only.")
    # Checks the names, once for all.
    limits = Access(user="limits", hidden=hide)

    def limited(access: Access) -> Access:
        permissions = () if read_only else access.permissions
        return replace(access, permissions=permissions, hidden={*access.hidden, *limits.hidden})

    if password_file:
        return basic_auth(_passwords(password_file), lambda user: limited(Access.full(user)))
    if authorize:
        return _within(targets.find(authorize), limited)
    if allow_anyone:
        return lambda request: limited(Access.full("anyone"))
    if not is_loopback(host):
        raise click.UsageError(_OPEN.format(host=host))
    if not read_only and not hide:
        return None

    def local(request: Any) -> Any:
        problem = why_not_local(request)
        return not_local(request, problem) if problem else limited(Access.full("local"))

    return local


def _within(authorize: Any, limited: Callable[[Any], Any]) -> "Authorize":
    """The application's own function, within the limits of the options."""
    import inspect

    from oban.web import Access

    if not callable(authorize):
        raise ConfigError(f"--authorize must be a function, not an object of type {type(authorize).__name__}")

    async def function(request: Any) -> Any:
        result = authorize(request)
        if inspect.isawaitable(result):
            result = await result
        return limited(result) if isinstance(result, Access) else result

    return function


def _passwords(file: str) -> dict[str, str]:
    path, found = Path(file), {}
    try:
        text = path.read_text("utf-8")
        # The owner may share it with a group, as containers do.
        if path.stat().st_mode & 0o007:
            logger.warning("every user of this machine can read %s: chmod o= %s", file, file)
    except OSError as error:
        raise click.UsageError(f"--password-file: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"--password-file: {file} is not text in UTF-8") from None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.partition(":")
        if not colon or user in found:
            problem = "names a user twice" if colon else "is not USER:PASSWORD"
            raise click.UsageError(f"--password-file: {file}, line {number} {problem}")
        found[user] = password
    return found
