"""The settings in oban.toml and pyproject.toml: which file is used, and what is wrong with it."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from oban.cli import settings
from oban.cli.setting_types import IN_CODE, TYPES
from oban.config import Options
from oban.errors import ConfigError

#: The head of the table in each kind of file.
FILES = {"oban.toml": "", "pyproject.toml": '[project]\nname = "shop"\n\n[tool.oban]\n'}


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write(name: str, text: str, folder: Path | None = None) -> int:
    """Write a file with these settings; returns the number of lines before them."""
    ((folder or Path.cwd()) / name).write_text(FILES[name] + text)
    return FILES[name].count("\n")


def load(**arguments: Any) -> settings.Settings:
    return settings.load(arguments)


def test_every_option_of_oban_is_a_setting_or_an_object_in_code() -> None:
    options = {option for option, field in Options.__dataclass_fields__.items() if field.init}
    assert options - set(TYPES) == set(IN_CODE)
    assert set(TYPES) - options == {
        "app",
        "database_url",
        "import",
        "processes",
        "log_level",
        "log_format",
        "health_port",
        "health_host",
        "metrics_port",
        "metrics_host",
        "web_host",
        "web_port",
        "web_password_file",
        "web_authorize",
        "web_read_only",
        "web_hide",
        "web_root_path",
        "url",
        "url_token_file",
    }


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ('app = "app.jobs:oban"', "app", "app.jobs:oban"),
        ('import = ["app.workers", "app.more"]', "import", ["app.workers", "app.more"]),
        ('import = "app.workers, app.more"', "import", ["app.workers", "app.more"]),
        ("processes = 4", "processes", 4),
        ("health_port = 0", "health_port", 0),
        ('health_host = "::"', "health_host", "::"),
        ("metrics_port = 9394", "metrics_port", 9394),
        ("web_port = 8000", "web_port", 8000),
        ("web_read_only = true", "web_read_only", True),
        ('web_hide = "args, meta"', "web_hide", ["args", "meta"]),
        ('log_format = "json"', "log_format", "json"),
        ('name = "Shop"', "name", "Shop"),
        ("lease = 90", "lease", 90.0),
        ("lease = 0.5", "lease", 0.5),
        ('lease = "90"', "lease", 90.0),
        ('lease = "1.5m"', "lease", 90.0),
        ('lease = "2 h"', "lease", 7200.0),
        ('lease = "1d"', "lease", 86_400.0),
        ('rescue_after = "2w"', "rescue_after", 1_209_600.0),
        ('poll_interval = "250ms"', "poll_interval", 0.25),
        ('timeout = "15m"', "timeout", 900.0),
        ("max_attempts = 3", "max_attempts", 3),
        ("leadership = false", "leadership", False),
        ("history = false", "history", False),
        ("queues = { default = 10, media = { limit = 2, paused = true } }", "queues", None),
        ("[queues]\ndefault = 10\nmedia = { limit = 2, paused = true }", "queues", None),
        ("[queues]\ndefault = 10\n[queues.media]\nlimit = 2\npaused = true", "queues", None),
        ('queues = "default:10,media:2"', "queues", {"default": 10, "media": 2}),
        (
            '[retention]\ncompleted = "6h"\ndiscarded = "forever"\nqueues.audit.completed = "forever"',
            "retention",
            {"completed": 21_600.0, "discarded": None, "queues": {"audit": {"completed": None}}},
        ),
    ],
)
def test_a_setting_has_its_type(text: str, key: str, value: Any) -> None:
    write("oban.toml", text)
    found = load().values
    assert list(found) == [key]
    wanted = {"default": 10, "media": {"limit": 2, "paused": True}} if value is None else value
    assert (found[key], type(found[key])) == (wanted, type(wanted))


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("lease = 5\nquues = 1", 2, "unknown option 'quues'; did you mean queues?"),
        ("zzz = 1", 1, "unknown option 'zzz'; known are app, "),
        ("middleware = 1", 1, "middleware takes Python objects, which a file cannot contain"),
        ("lease = true", 1, "lease should be a valid number, not True"),
        ("lease = 0", 1, "lease must be at least 0.1 and less than 1e9 seconds, not 0"),
        ("lease = nan", 1, "lease must be finite, not nan"),
        ('lease = "soon"', 1, "lease must be a number of seconds, or a period such as 90s, 15m, 6h or 7d"),
        ('lease = "5 parsecs"', 1, "or a period such as 90s, 15m, 6h or 7d, not '5 parsecs'"),
        ("\n\nmax_attempts = 2.0", 3, "max_attempts should be a valid integer, not 2.0"),
        ("max_attempts = true", 1, "max_attempts should be a valid integer, not True"),
        ('max_attempts = "3"', 1, "max_attempts should be a valid integer, not '3'"),
        ("max_attempts = 40_000", 1, "max_attempts must be an integer from 1 to 32767, not 40000"),
        ('leadership = "yes"', 1, "leadership should be a valid boolean, not 'yes'"),
        ("processes = 0", 1, "processes should be greater than or equal to 1, not 0"),
        ("processes = 257", 1, "processes should be less than or equal to 256, not 257"),
        ('notifier = "redis"', 1, "notifier should be 'listen' or 'poll', not 'redis'"),
        ('log_level = "loud"', 1, "log_level should be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ('prefix = "No"', 1, "prefix 'No' is not a schema name"),
        ('name = ""', 1, "name must be a string that is not blank"),
        ("import = [1]", 1, "import.0 should be a valid string, not 1"),
        ('queues = "a:b"', 1, "queues must be names and limits, such as default:10,media:2"),
        ("queues = 3", 1, "queues should be a valid table, not 3"),
        ("queues = { a = 1, b = 0 }", 1, "queue 'b': limit must be an integer from 1 to 10000, not 0"),
        ("queues.a = 1\nqueues.b = 0", 2, "queue 'b': limit must be an integer from 1 to 10000, not 0"),
        ("queues.a = 1\nqueues.b.limt = 5", 2, "queue 'b': unknown option 'limt'; did you mean limit?"),
        ("queues.a.limit = 1\nqueues.a.paused = 2", 2, "queue 'a': paused must be True or False, not 2"),
        ("retention.completed = 1\nretention.compleeted = 2", 2, "did you mean completed?"),
        ("retention.completed = 1\nretention.discarded = -2", 2, "discarded must be"),
        ('retention.completed = "ever"', 1, "retention: completed must be a number of seconds, or a period"),
        ('retention.completed = "ever"', 1, "6h or 7d, or forever, not 'ever'"),
        (
            'retention.limit = 3\nretention.queues.a.completed = "soon"',
            2,
            "retention: queues: a: completed must be",
        ),
        ("lease = 20\nheartbeat_interval = 15", 2, "heartbeat_interval must be at most half of the lease of"),
        ("heartbeat_interval = 15\nlease = 0", 2, "lease must be at least 0.1"),
        ("name = [\n  1,\n]\nlease = 5\nlaese = 6", 5, "unknown option 'laese'; did you mean lease?"),
        ("# a\u2028b\nlaese = 6", 2, "unknown option 'laese'; did you mean lease?"),
        ('name = """\n\n"""\nlaese = 6', 4, "unknown option 'laese'; did you mean lease?"),
    ],
)
def test_an_error_names_the_file_the_line_and_the_key(text: str, line: int, problem: str) -> None:
    first = write(name := "pyproject.toml", text)
    with pytest.raises(ConfigError) as error:
        load()
    problems = str(error.value).splitlines()
    assert any(each.startswith(f"{name}, line {first + line}: ") and problem in each for each in problems)


def test_all_wrong_types_and_unknown_keys_are_reported_at_once(name: str) -> None:
    first = write(name, "lease = true\nlaese = 5\nprocesses = 0\n")
    with pytest.raises(ConfigError) as error:
        load()
    places = [each.partition(":")[0] for each in str(error.value).splitlines()]
    assert sorted(places) == [f"{name}, line {first + line}" for line in (1, 2, 3)]


def test_values_that_contradict_each_other_are_reported_with_both_places(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(name, 'notifier = "poll"')
    monkeypatch.setenv("OBAN_LISTEN_URL", "postgresql://me:secret@host/db")
    with pytest.raises(ConfigError) as error:
        load()
    assert str(error.value) == (
        "listen_url and notifier='poll' contradict each other: use one of them"
        f" (notifier is from {name}, line {first + 1}, listen_url is from OBAN_LISTEN_URL)"
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lease = \n", 1),
        ("lease = 5\nlease = 6\n", 2),
        ("lease = 5\nname = 'x\n", 2),
        ("lease = 5\nimport = [\n", 2),
        ("lease = 5\n[queues\n", 2),
    ],
)
def test_a_syntax_error_is_reported_with_its_line(name: str, text: str, line: int) -> None:
    first = write(name, text)
    with pytest.raises(ConfigError) as error:
        load()
    assert str(error.value).startswith(f"{name}, line {first + line}: the file is not valid TOML: ")


def test_a_file_that_is_not_utf8_is_reported_with_its_line(name: str) -> None:
    Path(name).write_bytes(FILES[name].encode() + b"lease = 5\nname = 'caf\xe9'\n")
    with pytest.raises(ConfigError, match=rf"{name}, line {FILES[name].count(chr(10)) + 2}: .* not UTF-8"):
        load()


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(name: str) -> None:
    text = FILES[name] + "lease = 5\n"
    Path(name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    found = load()
    assert found.values == {"lease": 5}
    assert str(found.origins["lease"]) == f"{name}, line {FILES[name].count(chr(10)) + 1}"


@pytest.mark.parametrize(
    ("file", "text", "problem"),
    [
        ("gone.toml", None, "gone.toml cannot be read: No such file or directory"),
        (".", None, ". cannot be read: Is a directory"),
        ("pyproject.toml", "[project]\n", "pyproject.toml: there is no table [tool.oban]"),
        ("pyproject.toml", "[tool]\noban = 3\n", "pyproject.toml: tool.oban must be a table, not 3"),
        ("pyproject.toml", "tool = 3\n", "pyproject.toml: tool must be a table, not 3"),
        ("other.toml", "[tool.black]\n", "other.toml: there is no table [tool.oban]"),
    ],
)
def test_a_file_that_was_chosen_and_cannot_be_used_is_an_error(
    file: str, text: str | None, problem: str
) -> None:
    if text is not None:
        Path(file).write_text(text)
    with pytest.raises(ConfigError) as error:
        settings.load({}, file)
    assert str(error.value) == problem


def test_a_file_without_permission_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(name, "lease = 5")

    def refuse(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    # Permissions do not keep root from reading a file.
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ConfigError) as error:
        load()
    assert str(error.value) == f"{name} cannot be read: Permission denied"


def test_the_nearest_file_is_used(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    write(name, "lease = 5", folder)
    assert load().values == {"lease": 5}
    assert str(load().origins["lease"]) == f"{folder / name}, line {FILES[name].count(chr(10)) + 1}"
    # Files without settings do not end the search, whatever is wrong with them.
    (folder / "a" / "pyproject.toml").write_text("[project\ndependencies = ['oban-sqlalchemy']")
    assert load().values == {"lease": 5}
    write("pyproject.toml", "lease = 6", folder / "a")
    assert load().values == {"lease": 6}


def test_oban_toml_takes_precedence_over_pyproject_in_the_same_folder() -> None:
    write("pyproject.toml", "lease = 5\ntimeout = 5")
    write("oban.toml", "lease = 6")
    found = load()
    assert found.values == {"lease": 6}
    assert found.file is not None
    assert found.file.shadowed == "pyproject.toml"


def test_a_file_can_be_chosen_by_an_argument_or_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("oban.toml", "lease = 5")
    (folder / "live.toml").write_text("lease = 6")
    (folder / "test.toml").write_text("[tool.oban]\nlease = 7")
    monkeypatch.setenv("OBAN_CONFIG", "live.toml")
    assert settings.load({}).values == {"lease": 6}
    assert settings.load({}, "test.toml").values == {"lease": 7}
    assert settings.load({}, os.devnull).values == {}
    monkeypatch.setenv("OBAN_CONFIG", "")
    assert settings.load({}).values == {"lease": 5}


def test_without_a_file_or_even_a_folder_nothing_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load().values == {}
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert (load().values, load().folders) == ({}, ())


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("sqlite+aiosqlite:///jobs.db", "sqlite+aiosqlite:///{folder}/jobs.db"),
        ("sqlite:///data/jobs.db?timeout=3", "sqlite:///{folder}/data/jobs.db?timeout=3"),
        ("sqlite+aiosqlite:////srv/jobs.db", "sqlite+aiosqlite:////srv/jobs.db"),
        ("sqlite+aiosqlite://", "sqlite+aiosqlite://"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://me:p%40ss@host/db", "postgresql://me:p%40ss@host/db"),
        ("postgresql://me@a:1,b:2/db", "postgresql://me@a:1,b:2/db"),
        ("nonsense", "nonsense"),
    ],
)
def test_the_path_of_a_sqlite_file_is_relative_to_the_configuration_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, url: str, wanted: str
) -> None:
    write("oban.toml", f'database_url = "{url}"')
    monkeypatch.chdir(folder / "app")
    assert load().values["database_url"] == wanted.format(folder=folder)
    monkeypatch.setenv("OBAN_DATABASE_URL", url)
    assert load().values["database_url"] == url
