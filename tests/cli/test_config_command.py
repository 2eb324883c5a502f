"""What `oban config` shows in a terminal, as JSON, and never."""

import json
import socket
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from oban.cli.documents import json_schema
from tests.support.commands import invoke
from tests.support.terminal import Terminals

FILE = """\
database_url = "postgresql+asyncpg://me:s3cret@db.example/shop?password=s3cret"
listen_url = "postgresql://me:s3cret@direct.example/shop?sslpassword=s3cret&sslmode=require"
import = ["app.workers", "app.more"]
lease = "90s"
queues = { default = 10, media = { limit = 2, paused = true } }

[retention]
completed = "6h"
discarded = "forever"
workers."app.Audit".completed = 30
"""
ROWS = """
SETTING | VALUE | FROM
app | - | default
database_url | postgresql+asyncpg://me:***@db.example/shop?password=*** | oban.toml, line 1
import | app.workers, app.more | oban.toml, line 3
processes | 1 | default
log_level | info | default
log_format | text | default
health_port | - | default
health_host | 127.0.0.1 | default
metrics_port | - | default
metrics_host | 127.0.0.1 | default
web_host | 127.0.0.1 | default
web_port | 4010 | default
web_password_file | - | default
web_authorize | - | default
web_read_only | false | default
web_hide | - | default
web_root_path | - | default
url | - | default
url_token_file | - | default
name | Shop | --name
node | web | OBAN_NODE
prefix | - | default
queues.default.limit | 10 | oban.toml, line 5
queues.default.paused | false | oban.toml, line 5
queues.media.limit | 2 | oban.toml, line 5
queues.media.paused | true | oban.toml, line 5
retention.completed | 6h | oban.toml, line 8
retention.cancelled | 1d | default
retention.discarded | forever | oban.toml, line 9
retention.workers."app.Audit".completed | 30s | oban.toml, line 10
retention.workers."app.Audit".cancelled | 1d | default
retention.workers."app.Audit".discarded | 7d | default
retention.limit | 10000 | default
lease | 90s | oban.toml, line 4
"""


@pytest.fixture(autouse=True)
def file(folder: Path) -> None:
    (folder / "oban.toml").write_text(FILE)


def cells(lines: list[str]) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def test_a_wide_terminal_shows_each_setting_with_its_value_and_place(terminals: Terminals) -> None:
    variables = {"OBAN_NODE": "web"}
    code, lines = terminals.run("config", "--name", "Shop", columns=160, environment=variables)
    assert code == 0
    rows = [line.split(" | ") for line in ROWS.strip().splitlines()]
    assert cells(lines)[: len(rows)] == rows
    second = lines[0].index("VALUE")
    assert all(line[second - 1] == " " and line[second] != " " for line in lines)


def test_a_narrow_terminal_shows_each_setting_with_its_value_in_one_line(terminals: Terminals) -> None:
    code, lines = terminals.run("config", columns=40)
    assert code == 0
    assert all(len(line) <= 40 for line in lines)
    shown = cells(lines)
    assert shown[0][0] == "SETTING"
    assert len(shown) > 30
    assert not any("oban.toml" in line for line in lines)


def test_errors_and_warnings_fit_into_what_a_narrow_terminal_shows(terminals: Terminals) -> None:
    Path("oban.toml").write_text("laese = 1")
    code, lines = terminals.run("config", columns=60)
    assert code == 1
    assert "".join(lines) == "Error: oban.toml, line 1: unknown option 'laese'; did you mean lease?"


def test_the_json_has_its_schema_and_plain_values() -> None:
    result = invoke("config", "--json")
    found = json.loads(result.stdout)
    schema = json_schema()
    jsonschema.validate(found, {**schema["properties"]["config"], "$defs": schema["$defs"]})
    values = {value["key"]: value for value in found["values"]}
    assert found["file"] == "oban.toml"
    assert found["warnings"] == []
    assert values["lease"] == {"key": "lease", "value": 90.0, "source": "file", "place": "oban.toml, line 4"}
    assert values["retention.discarded"]["value"] is None
    assert values["import"]["value"] == ["app.workers", "app.more"]
    assert values["node"] == {
        "key": "node",
        "value": socket.gethostname(),
        "source": "default",
        "place": None,
    }


def test_settings_without_an_effect_are_warnings(folder: Path) -> None:
    (folder / "pyproject.toml").write_text("[tool.oban]\nlease = 3\n")
    result = invoke("config")
    assert result.stderr == (
        "Warning: [tool.oban] in pyproject.toml is not used, because there is oban.toml.\n"
    )
    (folder / "app" / "own.py").write_text("from oban import Oban\noban = Oban('sqlite+aiosqlite://')\n")
    Path("oban.toml").write_text("timeout = 3\nlease = 4\nname = 'x'\n")
    result = invoke("config", "app.own:oban")
    assert [line for line in result.stderr.splitlines() if "oban.toml, line" in line] == [
        "Warning: name of oban.toml, line 3 is not used: app.own:oban has its own.",
        "Warning: timeout of oban.toml, line 1 is not used: app.own:oban has its own.",
    ]


#: Values of `oban.toml` with a password, most of them wrong in some way.
SECRETS = [
    'database_url = "postgresql://me:s3cret@host/db"',
    'database_url = "postgresql://me:s3cret@a:1,b:2/db?PassWord=s3cret"',
    'database_url = "postgresql://me@host/db?password=s3cret&passfile=s3cret"',
    'database_url = "postgresql://me:s3cret@x@host:port/db"',
    'database_url = "mysql://me:s3cret@host/db"',
    'database_url = ["postgresql://me:s3cret@host/db"]',
    'database_url = { url = "s3cret" }',
    'database_url = "s3cret"',
    'database_url = "postgresql://me:s3cret',
    'database_url = "postgresql://me:s3cret@host/db"\nlisten_url = ["s3cret"]',
    'database_url = "postgresql://me:s3cret@127.0.0.1:1/db"\nlisten_url = "postgresql://u:s3cret@h/d?password=s3cret"',
    'database_url = "sqlite://"\nlisten_url = "postgresql://me:s3cret@host/db"',
    'listen_url = "postgresql://me:s3cret@host/db"\nnotifier = "poll"\ndatabase_url = "sqlite://"',
    'database_urll = "postgresql://me:s3cret@host/db"',
    'lease = 0\ndatabase_url = "postgresql://me:s3cret@host/db"',
]


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("command", [["config"], ["periodic", "list"]])
def test_no_password_of_a_file_is_ever_shown(text: str, command: list[str]) -> None:
    Path("oban.toml").write_text(text)
    result = invoke(*command)
    assert "s3cret" not in result.output
    assert result.output


@pytest.mark.parametrize("key", ["database_url", "listen_url"])
@pytest.mark.parametrize(
    "url", ["postgresql://me:s3cret@h/d?password=s3cret", "s3cret", "postgresql://me:s3cret@x@h:port/d"]
)
def test_no_password_of_a_variable_is_ever_shown(key: str, url: str) -> None:
    Path("oban.toml").unlink()
    variables: dict[str, Any] = {f"OBAN_{key.upper()}": url}
    for command in (["config", "--json"], ["install"]):
        result = invoke(*command, **variables)
        assert "s3cret" not in result.output


def test_no_password_of_an_app_is_ever_shown(folder: Path) -> None:
    url = "postgresql://me:s3cret@host/db?password=s3cret"
    (folder / "app" / "secret.py").write_text(
        f"from oban import Oban\noban = Oban('{url}', listen_url='{url}', name='App')\n"
    )
    for command in (["config", "app.secret:oban"], ["config", "--json", "--app", "app.secret:oban"]):
        result = invoke(*command)
        assert result.exit_code == 0, result.output
        assert "s3cret" not in result.output
        assert "me:***@host" in result.stdout
