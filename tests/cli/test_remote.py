"""Commands with `--url` print and change the same as commands with a database."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import URL, insert

from oban import Job, Periodic, SyncOban
from oban.models import Producer
from tests.cli.shop import Shop
from tests.support.commands import invoke, text
from tests.support.dashboards import of_database, served
from tests.support.rows import MADE, STATES, row

#: What differs from one moment to the next.
_TIMES = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?|\d+(\.\d+)?(ms|s| seconds?) ago"
    r'|(?<="oldest_available_age": )[\d.]+|(?<="heartbeat_age": )[\d.]+'
)

READING = [
    "jobs list",
    "jobs list --state available --state scheduled --limit 2",
    "jobs list --queue mail --sort oldest",
    "jobs list --args customer.id=7 --sort due",
    "jobs list --tag vip --older-than 1d --priority 3 --worker app.Send",
    "jobs list --node node-1 --meta a=b",
    "jobs show 1",
    "jobs show 2",
    "jobs show 99",
    "jobs wait 6",
    "jobs wait 7",
    "jobs wait 1 --timeout 0",
    "jobs wait 99",
    "jobs cancel --queue mail --dry-run",
    "jobs update --all --dry-run --set-priority 0",
    "jobs delete 1 4 99 --dry-run",
    "why 1 2",
    "why 99",
    "stats",
    "stats --count-limit 1",
    "nodes",
    "queues list",
    "periodic list",
    "periodic show nightly",
    "periodic show nightli",
]
CHANGING = [
    "jobs cancel 1 2 99 7",
    "jobs retry --state cancelled --yes --schedule-in 1h --set-queue slow",
    "jobs retry 1 1 99",
    "jobs update --queue mail --set-priority 1 --set-tag late --set-args '{\"to\": 8}' --yes",
    "jobs update 3 --scheduled-at 2124-03-09T22:17+01:00",
    "jobs update 99 --set-priority 1",
    "jobs delete 1 2 4",
    "jobs delete --all --yes",
    "jobs delete --queue nothing --yes",
    "queues pause mail",
    "queues pause --all --yes",
    "queues scale mail 3 --node web-1",
    "queues scale mail --configured",
    "queues start slow --limit 5 --paused",
    "queues stop slow",
    "queues resume --all --yes",
    "queues pause 'no queue'",
    "periodic add hourly @hourly app.Report --args '{\"a\": 1}' --catch-up 3 --timezone Europe/Berlin",
    "periodic add bad '* *' app.Report",
    "periodic pause nightly",
    "periodic run nightly",
    "periodic resume nightly",
    "periodic update nightly --expression '0 4 * * *' --queue slow",
    "periodic reset nightly",
    "periodic delete nightly",
    "periodic delete hourly",
    "periodic pause nightli",
]


@pytest.fixture
def full_url(sqlite_url: URL) -> URL:
    """A database with jobs in every state, a history and a periodic entry."""
    shop = Shop(sqlite_url, None)  # type: ignore[arg-type]
    error = {"attempt": 3, "at": "2024-03-09T22:18:30Z", "error": "ValueError: no such customer"}
    values = {"queue": "mail", "args": {"customer": {"id": 7}}, "tags": ["vip"], "meta": {"a": "b"}}
    shop.add_all(
        row(state, **values, priority=3, worker="app.Send", attempted_by=["node-1", "x"], errors=[error])
        for state in STATES
    )
    shop.add_all([row(), row(queue="other")])
    node = {
        "uuid": UUID("0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01"),
        "name": "Oban",
        "node": "node-1",
        "queue": "mail",
        "meta": {"paused": False, "local_limit": 5, "pid": 7},
        "started_at": MADE,
        "updated_at": MADE,
    }
    with shop.connected() as connection:
        connection.execute(insert(Producer).values(node))
    with SyncOban(sqlite_url.set(drivername="sqlite")) as oban:
        oban.add_periodic(Periodic("nightly", "0 3 * * *", Job(worker="app.Report")))
    return sqlite_url


@pytest.fixture
def address(full_url: URL) -> Iterator[str]:
    with served(of_database(full_url)) as url:
        yield f"{url}/oban"


def outcome(command: str, **environment: str) -> tuple[int, str, str]:
    """The exit code of a command and what it prints, without times."""
    result = invoke(*shlex.split(command), **environment)
    return result.exit_code, _TIMES.sub("TIME", result.stdout), _TIMES.sub("TIME", result.stderr)


@pytest.mark.slow
def test_commands_that_change_nothing_print_the_same(full_url: URL, address: str) -> None:
    for command in READING:
        for form in (command, f"{command} --json"):
            by_database = outcome(form, OBAN_DATABASE_URL=text(full_url))
            assert outcome(form, OBAN_URL=address) == by_database, form


@pytest.mark.slow
def test_commands_that_change_something_change_and_print_the_same(full_url: URL, tmp_path: Path) -> None:
    copy = full_url.set(database=str(tmp_path / "copy.db"))
    shutil.copy(str(full_url.database), str(copy.database))
    with served(of_database(copy)) as url:
        for command in CHANGING:
            form = f"{command} --json"
            by_database = outcome(form, OBAN_DATABASE_URL=text(full_url))
            assert outcome(form, OBAN_URL=f"{url}/oban") == by_database, form
            stored = [_stored(each) for each in (full_url, copy)]
            assert stored[0] == stored[1], command


def _stored(url: URL) -> str:
    environment = {"OBAN_DATABASE_URL": text(url)}
    commands = ("jobs list --json", "queues list --json", "periodic list --json")
    return "".join(outcome(command, **environment)[1] for command in commands)


def test_the_health_of_an_instance_is_checked(full_url: URL, address: str) -> None:
    by_database = invoke("check", "--json", "--verbose", OBAN_DATABASE_URL=text(full_url))
    by_url = invoke("check", "--json", "--verbose", OBAN_URL=address)
    assert by_url.exit_code == by_database.exit_code
    found = [json.loads(result.stdout) for result in (by_url, by_database)]
    assert [[each["code"], each["severity"]] for each in found[0]["findings"]] == [
        [each["code"], each["severity"]] for each in found[1]["findings"]
    ]


def test_large_lists_and_changes_need_several_requests(
    full_url: URL, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.cli.remote.operations._PAGE", 3)
    monkeypatch.setattr("oban.cli.remote.operations._IDS", 2)
    by_database = outcome("jobs list --json --limit 7", OBAN_DATABASE_URL=text(full_url))
    assert outcome("jobs list --json --limit 7", OBAN_URL=address) == by_database
    code, lines, _ = outcome("jobs cancel 1 2 3 99 98", OBAN_URL=address)
    assert (code, lines) == (0, "3 jobs were cancelled.\n")


def test_an_argument_names_a_database_instead(full_url: URL) -> None:
    nowhere = "http://127.0.0.1:1"
    code, _, _ = outcome(f"jobs list --database-url {text(full_url)}", OBAN_URL=nowhere)
    assert code == 0
    for arguments in (
        f"--url {nowhere} --database-url {text(full_url)}",
        f"--url {nowhere} --app app.jobs:oban",
        f"--url {nowhere} --name Other",
        f"--url {nowhere} --prefix other",
    ):
        code, _, problem = outcome(f"jobs list {arguments}")
        assert code == 2
        assert "cannot be combined with --url" in problem


def test_the_address_can_be_in_the_configuration_file(address: str, tmp_path: Path) -> None:
    (tmp_path / "oban.toml").write_text(f'url = "{address}"\n')
    assert outcome("jobs list --limit 1 --json")[0] == 0


def test_commands_that_need_a_database_say_so() -> None:
    code, _, problem = outcome("top --once", OBAN_URL="http://127.0.0.1:1")
    assert (code, "needs the database itself" in problem) == (2, True)
    assert "No database" in outcome("install", OBAN_URL="http://127.0.0.1:1")[2]
    assert "No such option '--url'" in outcome("start --url http://127.0.0.1:1")[2]
