"""The options of commands that are settings as well."""

import functools
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from oban import QueueOptions, durations
from oban.cli.logs import FORMATS, LEVELS
from oban.config import NOTIFIERS, Options

if TYPE_CHECKING:
    from oban.cli.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

MAX_PROCESSES = 256
MAX_PORT = 65535
DEFAULTS = Options()


class _Seconds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number of seconds, or a duration with units. The options check whether it makes sense."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        for convert in (float, durations.parse):
            with suppress(ValueError):
                return convert(value)
        self.fail(f"{value!r} is not a valid float, nor a period such as 90s or 5m.", param, ctx)


def parse_queues(text: str) -> dict[str, int]:
    """Queue names and limits, such as `default:10,media:2`.

    Raises:
        ValueError: The text is something else, or a queue is listed twice.
    """
    queues: dict[str, int] = {}
    for item in text.split(","):
        queue, colon, limit = item.strip().partition(":")
        # No queue's name has an equals sign, which other tools put before a number.
        if not queue or "=" in queue or (colon and not (limit.isascii() and limit.isdigit())):
            raise ValueError(f"{item!r} is not NAME:LIMIT, such as default:10")
        if queue in queues:
            raise ValueError(f"{queue!r} is listed twice")
        queues[queue] = int(limit) if colon else QueueOptions().limit
    return queues


def _parse_queues(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, int] | None:
    """The queues of all occurrences of the option."""
    try:
        return parse_queues(",".join(values)) if values else None
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


_config = click.option(
    "--config",
    metavar="FILE",
    help="The configuration file.  [default: OBAN_CONFIG, else the nearest oban.toml or pyproject.toml with"
    " [tool.oban] in the current folder and those above it]",
)

#: By setting.
_OPTIONS: dict[str, Callable[[F], F]] = {
    "app": click.option(
        "--app",
        metavar="TARGET",
        help="Instead of a URL: the application's own Oban, or a function that returns it, such as"
        " app.jobs:oban.",
    ),
    "database_url": click.option(
        "--database-url",
        metavar="URL",
        help="Such as postgresql+asyncpg://user@host/name or sqlite+aiosqlite:///file.db"
        " (default: the environment variable OBAN_DATABASE_URL).",
    ),
    "url": click.option(
        "--url",
        metavar="URL",
        help="Instead of a database: the address of a dashboard, such as https://example.com/oban, whose API"
        " does the work (default: the environment variable OBAN_URL).",
    ),
    "url_token_file": click.option(
        "--url-token-file",
        metavar="FILE",
        help="A file with a token for --url (default: the environment variable OBAN_URL_TOKEN).",
    ),
    "prefix": click.option("--prefix", metavar="SCHEMA", help="The schema of the tables (PostgreSQL only)."),
    "queues": click.option(
        "--queues",
        multiple=True,
        callback=_parse_queues,
        metavar="NAME:LIMIT,…",
        help="The queues to run, and how many jobs of each run at once. Can be repeated."
        "  [default: the queues of TARGET, else default:10]",
    ),
    "import": click.option(
        "--import",
        multiple=True,
        metavar="MODULE",
        help="A module that defines workers. Only imported workers can run. Can be repeated.",
    ),
    "name": click.option("--name", help=f"The name of the instance.  [default: {DEFAULTS.name}]"),
    "node": click.option(
        "--node", help="The name of this node.  [default: the node of TARGET, else the host name]"
    ),
    "processes": click.option(
        "--processes",
        type=click.IntRange(1, MAX_PROCESSES),
        help="How many nodes to run, named NODE-1, NODE-2, …, each in a child process that is restarted when"
        " it dies.  [default: 1]",
    ),
    "lease": click.option(
        "--lease",
        type=_Seconds(),
        metavar="SECONDS",
        help="Time without a heartbeat after which this node counts as dead and its jobs are rescued."
        f"  [default: {DEFAULTS.lease}]",
    ),
    "shutdown_grace_period": click.option(
        "--shutdown-grace-period",
        type=_Seconds(),
        metavar="SECONDS",
        help="How long running jobs can continue after SIGTERM or Ctrl-C, before they go back to the queue."
        f"  [default: {DEFAULTS.shutdown_grace_period}]",
    ),
    "notifier": click.option(
        "--notifier",
        type=click.Choice(NOTIFIERS),
        help="How the node hears of changes; poll works through a pooler in transaction mode."
        f"  [default: {DEFAULTS.notifier}]",
    ),
    "listen_url": click.option(
        "--listen-url",
        metavar="URL",
        help="A direct URL for LISTEN, past a pooler (default: the environment variable OBAN_LISTEN_URL).",
    ),
    "log_level": click.option(
        "--log-level",
        type=click.Choice(LEVELS),
        help="The least level of Oban's own log records. The application configures its other loggers."
        "  [default: info]",
    ),
    "log_format": click.option(
        "--log-format",
        type=click.Choice(FORMATS),
        help="How to write log records to stderr: as lines of text, or as one JSON object per line. With app,"
        " the handlers of the application write them.  [default: text]",
    ),
    "health_port": click.option(
        "--health-port",
        type=click.IntRange(0, MAX_PORT),
        help="Answer /live and /ready over HTTP on this port: 200, or 503 and the reasons.  [default: none]",
    ),
    "health_host": click.option(
        "--health-host",
        metavar="ADDRESS",
        help="The address of --health-port; 0.0.0.0 for probes from elsewhere.  [default: 127.0.0.1]",
    ),
    "metrics_port": click.option(
        "--metrics-port",
        type=click.IntRange(0, MAX_PORT),
        help="Serve metrics for Prometheus as /metrics on this port, which can be that of --health-port."
        " Needs oban-sqlalchemy[prometheus].  [default: none]",
    ),
    "metrics_host": click.option(
        "--metrics-host",
        metavar="ADDRESS",
        help="The address of --metrics-port; 0.0.0.0 for scrapes from elsewhere.  [default: 127.0.0.1]",
    ),
}


#: The settings that only commands with `of_instance` have as options.
_REMOTE = ("url", "url_token_file")
_OF_NODES = tuple(key for key in _OPTIONS if key not in _REMOTE)


def add(*keys: str) -> Callable[[F], F]:
    """Add `--config` and the options of these settings, those of nodes if none is named."""

    def decorate(function: F) -> F:
        for key in reversed(keys or _OF_NODES):
            function = _OPTIONS[key](function)
        return _config(function)

    return decorate


def one(key: str) -> Callable[[F], F]:
    """Add the option of a setting, without `--config`."""
    return _OPTIONS[key]


def arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the parameters of a command whose options were used."""
    used = {key: value for key, value in values.items() if key in _OPTIONS and value not in (None, ())}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in used.items()}


def with_settings(*keys: str) -> Callable[[F], F]:
    """Add the options of these settings. The command gets all settings as `settings`, a `Settings`."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            # The command can have an option of its own with the name of another setting.
            own = {key: values.pop(key) for key in keys or _OF_NODES}
            return function(settings=load(arguments(own), values.pop("config")), **values)

        decorated: Any = add(*keys)(command)
        return decorated  # type: ignore[no-any-return]

    return decorate


def with_target(function: F) -> F:
    """Add the argument TARGET to a command, which gets it as its option `--app`."""

    @functools.wraps(function)
    def command(target: str | None, app: str | None, **values: Any) -> Any:
        if target is not None:
            check_target(target)
            if app is not None:
                raise click.UsageError("TARGET is the same as --app: pass one of them.")
        return function(app=app if target is None else target, **values)

    decorated: Any = click.argument("target", required=False)(command)
    return decorated  # type: ignore[no-any-return]


def check_target(target: str) -> None:
    """Raise `UsageError` if TARGET is a URL, which can contain a password."""
    if "://" in target:
        raise click.UsageError(
            "TARGET is the application's own Oban, such as app.jobs:oban. Pass a URL as --database-url."
        )


def load(used: Mapping[str, Any], config: str | None, *, search: bool = True) -> "Settings":
    """Load the settings, of which the command line has set some."""
    # Importing pydantic-settings takes a fifth of the time of a command.
    from oban.cli import settings

    return settings.load(used, config, search=search)


def passed(values: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment variables by which a child process gets the same settings.

    URLs can contain passwords, and every user can see the arguments of a process.
    """
    from oban.cli.settings import flag, variable

    arguments, variables = [], {}
    for key, value in values.items():
        if key == "node":
            continue
        if key == "import":
            arguments += [argument for module in value for argument in (flag(key), module)]
        elif key == "queues" and all(isinstance(limit, int) for limit in value.values()):
            arguments += [flag(key), ",".join(f"{queue}:{limit}" for queue, limit in value.items())]
        elif key in _OPTIONS and key != "queues" and not key.endswith("url"):
            arguments += [flag(key), str(value)]
        else:
            variables[variable(key)] = value if isinstance(value, str) else json.dumps(value)
    return arguments, variables
