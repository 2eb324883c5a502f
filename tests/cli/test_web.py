"""`oban web` serves the dashboard, and does not open it to strangers."""

import asyncio
import base64
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner
from sqlalchemy import URL
from starlette.requests import HTTPConnection

from oban.cli import main, web
from oban.web import Access, dashboard
from tests.support.log_state import logging_restored
from tests.support.waiting import within
from tests.support.web import Visitor

OPEN = "--host 0.0.0.0"


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """The command sets up logging, as of a process that it has for itself."""
    with logging_restored():
        yield


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be served."""
    from oban.cli import web_server

    calls: list[Any] = []
    monkeypatch.setattr(web_server, "serve", lambda *args, **options: calls.append((*args, options)))
    return calls


@pytest.fixture
def passwords(tmp_path: Path) -> str:
    path = tmp_path / "passwords"
    path.write_text("# people\nada:correct horse\n\nbob:battery:staple\n")
    path.chmod(0o600)
    return str(path)


def run(arguments: str, *more: str) -> Any:
    return CliRunner().invoke(main, ["web", *arguments.split(), *more])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (OPEN, "can be reached from other machines"),
        (f"{OPEN} --read-only", "--allow-anyone"),
        (f"{OPEN} --hide args", "can be reached"),
        ("--host ::", "can be reached"),
        ("--host example.com", "can be reached"),
        (f"{OPEN} --allow-anyone", "--allow-anyone needs --read-only"),
        ("--password-file none", "--password-file: none: No such file"),
        ("--password-file none --authorize a:b", "exclude each other"),
        ("--read-only --allow-anyone --authorize a:b", "cannot be combined"),
        ("--authorize no.such.module:function", "No module named"),
        ("--hide secrets", "hidden can have"),
        ("--port 65536", "is not in the range"),
    ],
)
def test_it_does_not_start(served: list[Any], sqlite_url: URL, arguments: str, words: str) -> None:
    result = run(arguments, "--database-url", str(sqlite_url))
    assert result.exit_code in (1, 2)
    assert words in result.output
    assert served == []


@pytest.mark.parametrize("line", ["ada", "ada:short", "ada:correct horse\nada:another one", ":correct horse"])
def test_a_wrong_password_file_is_refused_without_its_passwords(
    served: list[Any], sqlite_url: URL, tmp_path: Path, line: str
) -> None:
    path = tmp_path / "passwords"
    path.write_text(line)
    result = run(OPEN, "--password-file", str(path), "--database-url", str(sqlite_url))
    assert result.exit_code in (1, 2)
    assert not any(secret in result.output for secret in ("short", "horse", "another"))
    assert served == []


def test_it_needs_a_database(served: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OBAN_DATABASE_URL", raising=False)
    assert "No database" in run("").output
    assert served == []


def test_a_missing_extra_names_the_command_that_installs_it(
    sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "oban.cli.web_server", None)
    monkeypatch.setattr(web, "EXTRA", ("oban",))
    assert "pip install 'oban-sqlalchemy[web]'" in run("", "--database-url", str(sqlite_url)).output


async def test_each_schema_is_an_instance(served: list[Any]) -> None:
    result = await asyncio.to_thread(
        run, "--database-url postgresql+asyncpg://localhost/x --prefix one --prefix two"
    )
    assert result.exit_code == 0, result.output
    clients, authorize, options = served[0]
    obans = await clients()
    assert [oban.options.prefix for oban in obans] == ["one", "two"]
    assert authorize is None
    assert (options["host"], options["port"]) == ("127.0.0.1", 4010)


def test_read_only_takes_all_permissions_away(
    served: list[Any], sqlite_url: URL, passwords: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = ("--database-url", str(sqlite_url))
    run(f"{OPEN} --read-only --allow-anyone --hide args", *url)
    run(f"{OPEN} --read-only --hide errors --password-file", passwords, *url)
    (tmp_path / "own_users.py").write_text(
        "from oban.web import Access\n"
        "async def authorize(request):\n"
        "    return Access(user='ada', permissions=['retry_jobs'], hidden=['meta'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run(f"{OPEN} --read-only --hide args --authorize own_users:authorize", *url)
    anyone, users, own = (call[1] for call in served)
    assert anyone(None) == Access(user="anyone", hidden=["args"])
    sent = base64.b64encode(b"bob:battery:staple")
    request = HTTPConnection({"type": "http", "headers": [(b"authorization", b"Basic " + sent)]})
    assert asyncio.run(users(request)) == Access(user="bob", hidden=["errors"])
    assert asyncio.run(own(None)) == Access(user="ada", hidden=["args", "meta"])


def test_a_file_and_the_environment_set_what_options_do(
    served: list[Any], sqlite_url: URL, passwords: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "oban.toml").write_text(
        f"database_url = '{sqlite_url}'\nweb_host = '0.0.0.0'\nweb_port = 8000\n"
        "web_password_file = 'passwords'\nweb_read_only = true\nweb_hide = ['args']\nweb_root_path = 'jobs'\n"
    )
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert run("").exit_code == 0
    monkeypatch.setenv("OBAN_WEB_PORT", "8001")
    assert run("--root-path other --hide meta").exit_code == 0
    assert run("--port 0").exit_code == 0
    options = [(call[2]["host"], call[2]["port"], call[2]["root_path"]) for call in served]
    assert options == [("0.0.0.0", 8000, "jobs"), ("0.0.0.0", 8001, "other"), ("0.0.0.0", 0, "jobs")]
    sent = base64.b64encode(b"ada:correct horse")
    request = HTTPConnection({"type": "http", "headers": [(b"authorization", b"Basic " + sent)]})
    found = [asyncio.run(call[1](request)) for call in served[:2]]
    assert found == [Access(user="ada", hidden=["args"]), Access(user="ada", hidden=["args", "meta"])]


def test_a_setting_does_not_open_the_dashboard(
    served: list[Any], sqlite_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = ("--database-url", str(sqlite_url))
    monkeypatch.setenv("OBAN_WEB_HOST", "0.0.0.0")
    assert "can be reached from other machines" in run("", *url).output
    monkeypatch.setenv("OBAN_WEB_READ_ONLY", "true")
    monkeypatch.setenv("OBAN_WEB_ALLOW_ANYONE", "true")
    assert "can be reached from other machines" in run("", *url).output
    monkeypatch.setenv("OBAN_WEB_READ_ONLY", "perhaps")
    assert "OBAN_WEB_READ_ONLY" in run("", *url).output
    assert served == []


@pytest.mark.parametrize("options", ["", "--read-only"])
def test_a_request_through_a_proxy_is_told_how_to_get_in(
    served: list[Any], sqlite_url: URL, options: str
) -> None:
    run(options, "--database-url", str(sqlite_url))
    clients, authorize, _ = served[0]
    board = dashboard(*asyncio.run(clients()), authorize=authorize)

    async def visit() -> httpx2.Response:
        async with Visitor(board) as visitor:
            return await visitor.get("/", headers={"X-Forwarded-For": "10.0.0.1"})

    response = asyncio.run(visit())
    assert response.status_code == 403
    assert "through a proxy" in response.text
    assert "--password-file" in response.text


async def test_it_says_where_it_is_and_stops_while_pages_are_open(sqlite_url: URL) -> None:
    command = [sys.executable, "-m", "oban", "web", "--port", "0", "--database-url"]
    process = await asyncio.create_subprocess_exec(
        *command, str(sqlite_url), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await within(process.stdout.readline())).decode()
    assert line.startswith("The dashboard is at http://127.0.0.1:")
    address = line.split()[4]
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        page = await client.get("/queues")
        assert page.status_code == 200
        assert "server" not in page.headers
        streams = [client.stream("GET", "/events") for _ in range(30)]
        opened = [await stream.__aenter__() for stream in streams]
        assert {response.status_code for response in opened} == {200}
        process.send_signal(signal.SIGTERM)
        code = await within(process.wait())
        for stream in streams:
            await stream.__aexit__(None, None, None)
    assert process.stderr is not None
    errors = (await process.stderr.read()).decode()
    assert (code, [word for word in ("Traceback", "ERROR") if word in errors]) == (0, [])
