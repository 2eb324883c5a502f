"""Settings from arguments, the environment and a file, and which commands use which of them."""

import json
import signal
from pathlib import Path
from typing import NoReturn

import click
import pytest
from click.testing import CliRunner
from sqlalchemy import URL

from oban import Oban
from oban.cli import main, options, settings
from oban.errors import ConfigError
from tests.support.commands import invoke, node, text, until

APP = """
from oban import Oban
oban = Oban("sqlite+aiosqlite:///{folder}/own.db", name="App", node="web", lease=20, queues={{"media": 2}})
"""


@pytest.fixture
def app(folder: Path) -> str:
    (folder / "app" / "jobs.py").write_text(APP.format(folder=folder))
    return "app.jobs:oban"


def shown(*arguments: str, **environment: str) -> dict[str, tuple[object, str, str | None]]:
    """The values that `oban config` shows, with their sources and places."""
    result = invoke("config", "--json", *arguments, **environment)
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout)["values"]
    return {value["key"]: (value["value"], value["source"], value["place"]) for value in values}


@pytest.mark.parametrize("file", ["oban.toml", "pyproject.toml"])
def test_an_argument_wins_over_the_environment_and_that_over_the_file(file: str) -> None:
    head = "" if file == "oban.toml" else "[tool.oban]\n"
    Path(file).write_text(
        head + "lease = 10\nname = 'File'\nlog_level = 'debug'\nqueues = { a = 1, b = 2 }\n"
    )
    line = head.count("\n")
    variables = {"OBAN_LEASE": "20", "OBAN_NAME": "Variable", "OBAN_QUEUES": "c:3"}
    found = shown(**variables)
    assert found["lease"] == (20, "environment", "OBAN_LEASE")
    assert found["name"] == ("Variable", "environment", "OBAN_NAME")
    assert found["log_level"] == ("debug", "file", f"{file}, line {line + 3}")
    assert found["processes"] == (1, "default", None)
    # A later table replaces an earlier one.
    assert [key for key in found if key.startswith("queues.")] == ["queues.c.limit", "queues.c.paused"]
    found = shown("--lease", "30", "--queues", "d:4", **variables)
    assert found["lease"] == (30, "argument", "--lease")
    assert shown("--lease", "2m", **variables)["lease"] == (120, "argument", "--lease")
    assert found["heartbeat_interval"] == (7.5, "default", None)
    assert found["name"] == ("Variable", "environment", "OBAN_NAME")
    assert found["queues.d.limit"] == (4, "argument", "--queues")
    assert "queues.c.limit" not in found


@pytest.mark.parametrize(
    ("variable", "value", "key", "wanted"),
    [
        ("OBAN_LEASE", "2m", "lease", 120.0),
        ("OBAN_LEASE", "0.5", "lease", 0.5),
        ("OBAN_PROCESSES", "3", "processes", 3),
        ("OBAN_MAX_ATTEMPTS", "5", "max_attempts", 5),
        ("OBAN_LEADERSHIP", "false", "leadership", False),
        ("OBAN_LEADERSHIP", "1", "leadership", True),
        ("OBAN_IMPORT", "app.a, app.b", "import", ["app.a", "app.b"]),
        ("OBAN_QUEUES", "a:1,b", "queues", {"a": 1, "b": 10}),
        ("OBAN_QUEUES", '{"a": {"limit": 1, "paused": true}}', "queues", {"a": {"limit": 1, "paused": True}}),
        ("OBAN_RETENTION", '{"completed": "6h"}', "retention", {"completed": 21_600.0}),
        ("OBAN_RETENTION", '{"completed": null}', "retention", {"completed": None}),
    ],
)
def test_a_variable_is_converted_to_the_type_of_its_setting(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, key: str, wanted: object
) -> None:
    monkeypatch.setenv(variable, value)
    found = settings.load({})
    assert found.values == {key: wanted}
    assert str(found.origins[key]) == variable


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("OBAN_LEASE", "soon", "lease must be a number of seconds, or a period such as 90s"),
        ("OBAN_LEASE", "0", "lease must be at least 0.1"),
        ("OBAN_PROCESSES", "many", "processes should be a valid integer, not 'many'"),
        ("OBAN_PROCESSES", "300", "processes should be less than or equal to 256, not 300"),
        ("OBAN_LEADERSHIP", "maybe", "leadership should be a valid boolean, not 'maybe'"),
        ("OBAN_QUEUES", "a:b", "queues must be names and limits"),
        ("OBAN_QUEUES", '{"a": {"limt": 1}}', "queue 'a': unknown option 'limt'; did you mean limit?"),
        ("OBAN_QUEUES", '{"a"', "queue '{\"a\"' is not a queue name"),
        ("OBAN_RETENTION", "6h", "retention should be a valid table, not '6h'"),
        ("OBAN_HEALTH_PORT", "65536", "health_port should be less than or equal to 65535, not 65536"),
        ("OBAN_LOG_FORMAT", "xml", "log_format should be 'text', 'json' or 'app', not 'xml'"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str, problem: str) -> None:
    result = invoke("config", **{variable: value})
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {variable}: {problem}")


def test_variables_that_are_no_settings_are_ignored_and_similar_ones_warned_about() -> None:
    others = {"OBAN_FAST_PATH": "1", "OBAN_TEST_DATABASE_URL": "x", "OBAN_LEDGER_FILE": "x", "OBAN_LEASE": ""}
    result = invoke("config", **others)
    assert (result.exit_code, result.stderr) == (0, "")
    result = invoke("config", OBAN_DATABSE_URL="postgresql://me:secret@host/db")
    assert result.stderr == "Warning: OBAN_DATABSE_URL is not a setting; did you mean OBAN_DATABASE_URL?\n"
    for command in (["periodic", "list"], ["install"], ["start"]):
        result = invoke(*command, OBAN_DATABSE_URL="postgresql://me:secret@host/db")
        assert result.exit_code == 2
        assert "OBAN_DATABSE_URL is not a setting; did you mean OBAN_DATABASE_URL?" in result.stderr
        assert "secret" not in result.stderr
        assert "There is no oban.toml in this folder or above it." in result.stderr


def test_every_command_uses_the_database_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("oban.toml").write_text('database_url = "sqlite+aiosqlite:///jobs.db"\nname = "Shop"\n')
    monkeypatch.chdir(folder / "app")
    assert invoke("install").exit_code == 0
    assert (folder / "jobs.db").exists()
    assert "The instance Shop has no periodic entries." in invoke("periodic", "list").stdout
    assert "The instance Other has" in invoke("periodic", "list", "--name", "Other").stdout
    assert invoke("uninstall", "--yes").stdout == "The Oban tables were dropped.\n"


@pytest.mark.parametrize("command", [["periodic", "list"], ["install"], ["start"], ["config"]])
def test_every_command_refuses_a_wrong_file_and_exits_with_1(command: list[str]) -> None:
    Path("oban.toml").write_text("database_url = 'sqlite://'\nlaese = 3\n")
    result = invoke(*command)
    assert result.exit_code == 1
    assert result.stderr == "Error: oban.toml, line 2: unknown option 'laese'; did you mean lease?\n"
    Path("other.toml").write_text("leese = 3\n")
    result = invoke(*command, "--config", "other.toml")
    assert result.stderr == "Error: other.toml, line 1: unknown option 'leese'; did you mean lease?\n"


def test_start_reports_a_wrong_file_in_the_format_of_its_log() -> None:
    Path("oban.toml").write_text("laese = 3\n")
    result = invoke("start", "--log-format", "json", "--database-url", "sqlite://")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["message"].startswith("oban.toml, line 1: unknown option")


def test_start_uses_the_settings_of_the_file(started: list[Oban]) -> None:
    Path("oban.toml").write_text(
        'database_url = "sqlite+aiosqlite:///jobs.db"\nname = "Shop"\nnode = "web"\nlease = "40s"\n'
        'timeout = "1h"\nmax_attempts = 3\nstatement_timeout = 5\nhistory = false\nimport = "app.workers"\n'
        "queues = { default = 3, media = { limit = 2, paused = true } }\n"
        '[retention]\ncompleted = "forever"\n'
    )
    main(["start", "--lease", "20"], standalone_mode=False)
    [oban] = started
    found = oban.options
    assert (found.name, found.node, found.lease, found.timeout) == ("Shop", "web", 20, 3600)
    assert (found.max_attempts, found.statement_timeout, found.history) == (3, 5, False)
    limits = {name: (queue.limit, queue.paused) for name, queue in found.queues.items()}
    assert limits == {"default": (3, False), "media": (2, True)}
    assert (found.retention.completed, found.retention.cancelled) == (None, 86_400)


def test_a_module_that_the_file_names_and_that_cannot_be_imported_is_reported_with_its_place() -> None:
    Path("oban.toml").write_text('database_url = "sqlite://"\nimport = ["app.missing"]\n')
    result = invoke("start")
    assert result.exit_code == 1
    assert "oban.toml, line 2: import app.missing: No module named 'app.missing'" in result.stderr


# -- the application's own Oban ----------------------------------------------------------------


def test_an_app_of_any_source_takes_precedence_over_a_url_that_is_no_argument(app: str) -> None:
    url = "sqlite+aiosqlite:///other.db"
    for arguments, variables in (
        ([app], {"OBAN_DATABASE_URL": url}),
        (["--app", app], {"OBAN_DATABASE_URL": url}),
        ([], {"OBAN_APP": app, "OBAN_DATABASE_URL": url}),
    ):
        assert shown(*arguments, **variables)["name"] == ("App", "app", app)
    Path("oban.toml").write_text(f'app = "{app}"\n')
    assert shown(OBAN_DATABASE_URL=url)["name"] == ("App", "app", app)
    assert shown("--database-url", url)["database_url"] == (url, "argument", "--database-url")
    assert shown("--database-url", url)["name"] == ("Oban", "default", None)


@pytest.mark.parametrize(
    "arguments", [["--database-url", "sqlite://"], ["--prefix", "jobs"], ["--name", "Shop"]]
)
@pytest.mark.parametrize("command", [["periodic", "list"], ["start"], ["config"]])
def test_an_argument_that_an_app_has_itself_is_refused(
    app: str, command: list[str], arguments: list[str]
) -> None:
    chosen = [app] if command == ["start"] else ["--app", app]
    result = invoke(*command, *chosen, *arguments)
    assert result.exit_code == 2
    assert f"{arguments[0]} cannot be combined with {app}: it is an option of that Oban." in result.stderr


def test_the_file_overrides_the_queues_node_lease_and_grace_period_of_an_app(
    app: str, started: list[Oban], caplog: pytest.LogCaptureFixture
) -> None:
    Path("oban.toml").write_text(
        f'app = "{app}"\nlease = 40\nnode = "file"\nshutdown_grace_period = 3\ntimeout = 5\nprefix = "x"\n'
        "queues = { default = 3 }\n"
    )
    main(["start", "--node", "argument"], standalone_mode=False)
    [oban] = started
    found = oban.options
    assert (found.name, found.node, found.lease, found.heartbeat_interval) == ("App", "argument", 40, 10)
    assert (found.shutdown_grace_period, found.timeout, found.prefix) == (3, None, None)
    assert {name: queue.limit for name, queue in found.queues.items()} == {"default": 3}
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning == f"{app} has options of its own, so these have no effect: timeout (oban.toml, line 5)"


def test_an_app_of_the_file_is_imported_from_the_folder_of_the_file(
    app: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("oban.toml").write_text(f'app = "{app}"\n')
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    assert invoke("install", "--database-url", f"sqlite:///{folder}/own.db").exit_code == 0
    result = invoke("periodic", "list")
    assert (result.exit_code, result.stderr) == (0, "")


# -- the processes of a supervisor -------------------------------------------------------------

_PRINTING = """
import sys
from oban import Oban
class Printed(Oban):
    async def start(self):
        print("options", self.options, flush=True)
        await super().start()
sys.modules["oban.cli.start"].Oban = Printed
"""


@pytest.mark.slow
def test_the_nodes_of_a_supervisor_get_the_same_settings_and_no_password_as_an_argument(
    folder: Path, postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "app" / "printing.py").write_text(_PRINTING)
    secret = text(postgresql_url.set(password="s3cret"))
    (folder / "oban.toml").write_text(
        f'listen_url = "{secret}"\nname = "Shop"\nlease = 30\ntimeout = "1m"\nprocesses = 2\n'
        'import = ["app.printing", "app.workers"]\nhistory = false\n'
        "queues = { default = 1, media = { limit = 2, paused = true } }\n"
        '[retention]\ncompleted = "forever"\nqueues.media.discarded = 5\n'
    )
    # The modules are in the folder of the file.
    monkeypatch.chdir(folder / "app")
    monkeypatch.setenv("OBAN_MAX_ATTEMPTS", "7")
    # The URL is an argument, and is used instead.
    monkeypatch.setenv("OBAN_APP", "app.no_such:oban")
    seen: dict[str, str] = {}
    with node("--lease", "20", "--node", "web", "--database-url", secret) as process:
        while len(seen) < 2:
            line = until(process, "options Options(")[-1]
            seen[line.partition("node='")[2].partition("'")[0]] = line
            # Nodes that start later must not read it again.
            (folder / "oban.toml").write_text("laese = 1")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        commands = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    assert len(commands) == 2
    assert "s3cret" not in " ".join(commands)
    assert set(seen) == {"web-1", "web-2"}
    for line in seen.values():
        for part in (
            "name='Shop'",
            "lease=20.0",
            "timeout=60.0",
            "max_attempts=7",
            "history=False",
            "'media': QueueOptions(limit=2, paused=True)",
            "retention=Retention(completed=None",
            "'media': Retention(completed=86400.0, cancelled=86400.0, discarded=5.0",
        ):
            assert part in line


def test_the_settings_of_a_child_process_are_those_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:s3cret@host/db"
    Path("oban.toml").write_text(
        f'database_url = "{url}"\nlisten_url = "{url}"\nname = "The shop"\nlease = "1m"\ntimeout = 0.5\n'
        'import = ["a.b", "c"]\nleadership = false\nprefix = "jobs"\nlog_level = "debug"\n'
        "queues = { default = 1, media = { limit = 2, paused = true } }\n"
        '[retention]\ncompleted = "forever"\nworkers."app.W".discarded = "2d"\n'
    )
    parent = settings.load({})
    arguments, variables = options.passed(parent.values)
    assert "s3cret" not in " ".join(arguments)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    used = {}

    def receive(given: dict[str, object], *_: object) -> NoReturn:
        used.update(given)
        raise ConfigError("received")

    monkeypatch.setattr(options, "load", receive)
    with pytest.raises(ConfigError, match="received"):
        main.commands["config"].main(arguments, standalone_mode=False)
    child = settings.load(used, search=False)
    assert child.values == parent.values
    assert child.file is None


def test_a_wrong_argument_is_named_with_its_option() -> None:
    result = invoke("config", "--lease", "0")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: --lease: lease must be at least 0.1")


def test_install_creates_the_tables_of_an_app(app: str, folder: Path) -> None:
    assert invoke("install", "--app", app, OBAN_DATABASE_URL="sqlite:///other.db").exit_code == 0
    assert (folder / "own.db").exists()
    assert not (folder / "other.db").exists()
    result = invoke("uninstall", "--yes", "--app", app)
    assert (result.exit_code, result.stdout) == (0, "The Oban tables were dropped.\n")


def test_a_command_keeps_an_option_of_its_own_with_the_name_of_a_setting() -> None:
    @click.command()
    @options.with_settings("name")
    @click.option("--node")
    def command(settings: settings.Settings, node: str) -> None:
        click.echo(f"{node} {dict(settings.values)}")

    result = CliRunner().invoke(command, ["--node", "web", "--name", "Shop"])
    assert result.stdout == "web {'name': 'Shop'}\n"
