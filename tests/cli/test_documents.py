"""What each command prints with `--json` is valid by the documented JSON Schema."""

import json
import shlex
from typing import Any
from uuid import UUID

import pytest
from jsonschema import Draft202012Validator, ValidationError
from sqlalchemy import insert

from oban import Job, Periodic, SyncOban
from oban.cli import main
from oban.cli.documents import DOCUMENTS
from oban.models import Producer
from tests.cli.shop import Shop
from tests.support.commands import invoke
from tests.support.processes import ROOT
from tests.support.rows import MADE, row

SCHEMA = json.loads((ROOT / "docs" / "command_line.schema.json").read_text())
#: The arguments of each command that needs some. Job 1 is discarded, and `nightly` is a periodic entry.
ARGUMENTS: dict[str, list[str]] = {
    "jobs show": ["1"],
    "jobs wait": ["1", "2 --timeout 0"],
    "jobs cancel": ["1 2 99", "--state available --dry-run", "--all --yes"],
    "jobs retry": ["1 2 99", "--state discarded --dry-run", "--all --yes"],
    "jobs delete": ["3 99", "--state discarded --dry-run", "--queue nothing --yes"],
    "jobs update": ["1 --set-priority 0", "--all --dry-run --set-priority 0"],
    "jobs list": ["", "--queue nothing"],
    "periodic add": ["hourly @hourly app.Report"],
    "periodic update": ["nightly --queue slow"],
    **{f"periodic {verb}": ["nightly"] for verb in ("show", "pause", "resume", "reset", "run")},
    "periodic delete": ["hourly"],
    **{f"queues {verb}": ["mail"] for verb in ("pause", "resume", "start", "stop")},
    "queues scale": ["mail 3"],
    "why": ["1 2", "99"],
    "uninstall": ["--yes", "--yes"],
}


@pytest.fixture
def busy_shop(shop: Shop) -> Shop:
    """A database with jobs in several states, a node and a periodic entry."""
    error = {"attempt": 3, "at": "2024-03-09T22:18:30Z", "error": "ValueError: no such customer"}
    shop.add_all([row("discarded", errors=[error], tags=["vip"]), row(queue="mail"), row("executing")])
    node = {
        "uuid": UUID("0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01"),
        "name": "Oban",
        "node": "node-1",
        "queue": "mail",
        "meta": {"paused": False, "local_limit": 5},
        "started_at": MADE,
        "updated_at": MADE,
    }
    with shop.connected() as connection:
        connection.execute(insert(Producer).values(node))
    driver = {"sqlite+aiosqlite": "sqlite"}.get(shop.url.drivername, "postgresql+psycopg")
    with SyncOban(shop.url.set(drivername=driver)) as oban:
        oban.add_periodic(Periodic("nightly", "0 3 * * *", Job(worker="app.Report")))
    return shop


def validate(command: str, document: Any) -> None:
    schema = {"$schema": SCHEMA["$schema"], "$defs": SCHEMA["$defs"], **SCHEMA["properties"][command]}
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)


def test_the_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_every_command_prints_a_valid_document(busy_shop: Shop) -> None:
    for command in DOCUMENTS:
        for arguments in ARGUMENTS.get(command, [""]):
            words = [*command.split(), *shlex.split(arguments), "--json"]
            result = invoke(*words, **busy_shop.environment)
            assert result.stdout, (words, result.output)
            validate(command, json.loads(result.stdout))


def test_every_command_with_json_is_documented() -> None:
    commands = {
        f"{name} {verb}".strip(): command
        for name, group in main.commands.items()
        for verb, command in getattr(group, "commands", {"": group}).items()
    }
    with_json = {
        name
        for name, command in commands.items()
        if any("--json" in option.opts for option in command.params)
    }
    assert with_json == DOCUMENTS.keys()


def test_a_wrong_document_is_refused() -> None:
    with pytest.raises(ValidationError):
        validate("jobs list", [{"id": "seven"}])
