"""`--log-level` and `--log-format`, and an application that configures logging itself."""

import json
import logging
import logging.config
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import URL

from oban.cli.logs import Console
from oban.errors import ConfigError
from tests.support.commands import invoke, node, oban, text, until
from tests.support.log_state import logging_restored

TO_STDERR = {"class": "logging.StreamHandler", "formatter": "own"}
DICT = {"version": 1, "formatters": {"own": {"format": "own %(message)s"}}}
FILE_CONFIG = """
[loggers]
keys=root
[handlers]
keys=all
[formatters]
keys=
[logger_root]
level=ERROR
handlers=all
[handler_all]
class=StreamHandler
args=(sys.stderr,)
"""


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    with logging_restored():
        yield


def console(level: str = "info", kind: str = "text", node: str = "a", *, prefix: bool = False) -> Console:
    """A console in a process without the handlers of pytest."""
    for handler in logging.root.handlers[:]:
        logging.root.removeHandler(handler)
    made = Console(level, kind, node, prefix=prefix)
    made.apply()
    return made


def with_dict(**configuration: object) -> None:
    logging.config.dictConfig({**DICT, **configuration})


def root_to_stderr() -> None:
    with_dict(handlers={"all": TO_STDERR}, root={"level": "DEBUG", "handlers": ["all"]})


def root_to_stdout() -> None:
    handler = {**TO_STDERR, "stream": "ext://sys.stdout"}
    with_dict(handlers={"all": handler}, root={"level": "DEBUG", "handlers": ["all"]})


def own_handler_of_oban() -> None:
    oban = {"level": "CRITICAL", "handlers": ["all"], "propagate": False}
    with_dict(handlers={"all": TO_STDERR}, loggers={"oban": oban})


def own_handler_of_a_logger_of_oban() -> None:
    with_dict(handlers={"all": TO_STDERR}, loggers={"oban.executor": {"handlers": ["all"]}})


def nothing_but_the_defaults() -> None:
    with_dict()


def from_a_file() -> None:
    Path("logging.ini").write_text(FILE_CONFIG)
    logging.config.fileConfig("logging.ini")


def basic_by_force() -> None:
    logging.basicConfig(level=logging.ERROR, force=True)


def quiet_root() -> None:
    logging.getLogger().setLevel(logging.CRITICAL)


@pytest.mark.parametrize(
    "configure",
    [
        root_to_stderr,
        root_to_stdout,
        own_handler_of_oban,
        own_handler_of_a_logger_of_oban,
        nothing_but_the_defaults,
        from_a_file,
        basic_by_force,
        quiet_root,
    ],
)
def test_an_application_that_configures_logging_neither_silences_a_record_nor_doubles_it(
    configure: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(configure)
    executor = logging.getLogger("oban.executor")
    made = console()
    configure()
    made.apply()
    logging.getLogger("oban").info("one record")
    executor.info("another record")
    captured = capsys.readouterr()
    printed = captured.out + captured.err
    assert [line.split(" INFO    ")[-1] for line in printed.splitlines()] == [
        "oban  one record",
        "oban.executor  another record",
    ]


def test_the_level_is_that_of_the_oban_logger_alone(capsys: pytest.CaptureFixture[str]) -> None:
    console("debug", "text", "a")
    logging.getLogger("oban.notifier").debug("shown")
    logging.getLogger("app").info("not shown")
    logging.getLogger("app").warning("shown as well")
    assert logging.root.level == logging.WARNING
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "DEBUG   oban.notifier  shown",
        "WARNING app  shown as well",
    ]


def test_a_basic_configuration_of_the_application_takes_effect(capsys: pytest.CaptureFixture[str]) -> None:
    made = console("warning")
    logging.basicConfig(level=logging.INFO, format="own %(message)s")
    made.apply()
    logging.getLogger("app").info("a line of the application")
    logging.getLogger("oban").info("not shown")
    assert capsys.readouterr().err == "own a line of the application\n"


def test_a_log_file_of_the_application_gets_the_records_too(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = console()
    logging.basicConfig(filename=folder / "app.log", level=logging.ERROR, format="%(message)s", force=True)
    made.apply()
    logging.getLogger("oban").info("one record")
    for handler in logging.root.handlers:
        handler.close()
    assert (folder / "app.log").read_text() == "one record\n"
    assert capsys.readouterr().err.endswith("oban  one record\n")


@pytest.mark.parametrize("configure", [root_to_stderr, root_to_stdout, from_a_file, basic_by_force])
def test_the_handlers_of_the_application_write_the_records_if_it_wants_that(
    configure: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(configure)
    made = console("info", "app")
    configure()
    made.apply()
    logging.getLogger("oban.executor").error("one record")
    captured = capsys.readouterr()
    # Not in the format of the command.
    assert "oban.executor  one record" not in captured.out + captured.err
    assert (captured.out + captured.err).count("one record") == 1


def test_without_a_handler_of_the_application_the_records_are_not_lost(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console("info", "app")
    logging.getLogger("oban.executor").info("one record")
    assert capsys.readouterr().err.endswith(" INFO    oban.executor  one record\n")


def test_json_has_the_documented_fields_with_extra_ones_and_exceptions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console("info", "json", "web-1")
    try:
        raise KeyError("ä\n")
    except KeyError:
        extra = {"job_id": 7, "duration": 0.5, "key": object}
        logging.getLogger("oban.executor").exception("job %s failed", 7, extra=extra)
    logging.getLogger("app").warning("from elsewhere", extra={"node": "other"}, stack_info=True)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("timestamp").endswith("+00:00")
    assert isinstance(first.pop("process"), int)
    assert first.pop("exception").endswith("KeyError: 'ä\\n'")
    assert first == {
        "level": "ERROR",
        "logger": "oban.executor",
        "message": "job 7 failed",
        "node": "web-1",
        "job_id": 7,
        "duration": 0.5,
        "key": "object",
    }
    assert (second["logger"], second["node"]) == ("app", "other")
    assert second["stack"].startswith("Stack (most recent call last)")


def test_a_line_of_text_names_the_node_if_several_print_to_the_same_place(
    capsys: pytest.CaptureFixture[str],
) -> None:
    console("info", "text", "100%-1", prefix=True)
    logging.getLogger("oban").info("starting")
    assert capsys.readouterr().err.endswith(" INFO    100%-1  oban  starting\n")


SILENCING = """
import logging.config
logging.config.dictConfig({
    "version": 1,
    "handlers": {"all": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout"}},
    "root": {"level": "ERROR", "handlers": ["all"]},
})
"""


def test_every_line_of_a_node_is_json_and_the_application_does_not_silence_it(
    folder: Path, sqlite_url: URL
) -> None:
    with (folder / "app" / "workers.py").open("a") as workers:
        workers.write(SILENCING)
    options = ["--import", "app.workers", "--node", "web", "--log-format", "json"]
    with node("--database-url", text(sqlite_url), *options) as process:
        lines = until(process, "node web runs default:10")
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        lines += list(process.stdout)
        assert process.wait() == 0
    records = [json.loads(line) for line in lines]
    assert {record["node"] for record in records} == {"web"}
    messages = [record["message"] for record in records]
    assert messages.count("node web runs default:10") == 1
    assert messages[-1] == "stopped"


def test_an_error_that_ends_the_command_is_json(folder: Path) -> None:
    (folder / "app" / "workers.py").write_text(SILENCING + "\nimport no_such\n")
    options = ["--import", "app.workers", "--log-format", "json"]
    result = oban("start", "--database-url", "sqlite://", *options)
    assert result.returncode == 1
    last = [json.loads(line) for line in result.stderr.splitlines()][-1]
    assert last["level"] == "CRITICAL"
    assert "No module named 'no_such'" in last["message"]
    assert "exception" not in last


def test_an_unexpected_error_is_json_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    made = console(kind="json")
    with pytest.raises(SystemExit), made.errors():
        raise RuntimeError("broken")
    [line] = capsys.readouterr().err.splitlines()
    assert json.loads(line)["exception"].endswith("RuntimeError: broken")


def test_the_cause_of_an_error_is_shown_at_debug_level_also_if_the_application_disabled_loggers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = console("debug")
    nothing_but_the_defaults()
    with pytest.raises(ConfigError), made.errors():
        raise ConfigError("wrong") from KeyError("a")
    assert capsys.readouterr().err.endswith("DEBUG   oban  the cause of the error\nKeyError: 'a'\n")


def test_an_error_is_left_to_the_command_if_lines_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    made = console()
    with pytest.raises(RuntimeError, match="broken"), made.errors():
        raise RuntimeError("broken")
    assert capsys.readouterr().err == ""


def test_an_unknown_format_is_refused() -> None:
    result = invoke("start", "--database-url", "sqlite://", "--log-format", "xml")
    assert result.exit_code == 2
    assert "'xml' is not one of 'text', 'json', 'app'" in result.stderr
