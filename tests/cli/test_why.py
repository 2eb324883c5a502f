"""`oban why` in a terminal: the decisive reason first, then what to do, in lines that fit."""

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
from sqlalchemy import URL, update

from oban import Job, SyncOban
from oban.cli.documents import json_schema
from tests.support import commands
from tests.support.databases import Factory
from tests.support.terminal import Terminals

pytestmark = pytest.mark.either_database

SYNC = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


@pytest.fixture
def url(factory: Factory, monkeypatch: pytest.MonkeyPatch) -> Iterator[URL]:
    """A database, which the commands find in the environment."""
    made = factory.create()
    monkeypatch.setenv("OBAN_DATABASE_URL", commands.text(made))
    yield made
    factory.drop(made)


@pytest.fixture
def oban(url: URL) -> Iterator[SyncOban]:
    with SyncOban(url.set(drivername=SYNC[url.get_backend_name()])) as client:
        yield client


def test_the_reasons_fit_a_wide_terminal(terminals: Terminals, oban: SyncOban) -> None:
    job = oban.enqueue(Job(worker="app.Mailer", queue="mail"))
    oban.cancel_job(job)
    code, lines = terminals.run("why", str(job.id), columns=160)
    assert (code, [re.sub(r"\d seconds?", "0 seconds", line) for line in lines]) == (
        0,
        [
            f"Job {job.id} (cancelled, queue mail, worker app.Mailer): It has ended: it was cancelled at "
            f"{job.cancelled_at:%Y-%m-%d}",
            f"{job.cancelled_at:%H:%M:%S} UTC, 0 seconds ago.",
            "  To run it again, retry it, which allows one more attempt if none is left:",
            f"    oban jobs retry {job.id}",
        ],
    )


def test_the_reasons_fit_a_narrow_terminal(terminals: Terminals, oban: SyncOban) -> None:
    job = oban.enqueue(Job(worker="app.Mailer", queue="mail"))
    assert terminals.run("why", str(job.id), columns=30) == (
        0,
        [
            f"Job {job.id} (available, queue mail,",
            "worker app.Mailer): No node is",
            "alive at all. No live node",
            "runs the queue mail.",
            "  Start a node that runs it:",
            # A command stays one line, which the terminal continues.
            "    oban start --queues mail:1",
            "0",
        ],
    )


def test_several_jobs_are_explained_and_a_missing_one_is_a_failure(
    terminals: Terminals, oban: SyncOban
) -> None:
    jobs = oban.enqueue_many(Job(worker="app.A", schedule_in=7200), Job(worker="app.B"))
    code, lines = terminals.run("why", *(str(job.id) for job in jobs), "99", str(jobs[0].id))
    assert code == 1
    heads = [line.split(":")[0] for line in lines if line.startswith(("Job", "Also"))]
    assert heads == [
        f"Job {jobs[0].id} (scheduled, queue default, worker app.A)",
        "Also",
        f"Job {jobs[1].id} (available, queue default, worker app.B)",
        "Job 99",
    ]
    assert " ".join(lines[-2:]).endswith("whether that transaction was   committed.")


def test_json_follows_the_schema(terminals: Terminals, oban: SyncOban) -> None:
    job = oban.enqueue(Job(worker="app.A", queue="mail"))
    code, lines = terminals.run("why", str(job.id), "99", "--json", columns=300)
    found: list[dict[str, Any]] = json.loads("\n".join(lines))
    schema = json_schema()
    jsonschema.validate(found, {**schema["properties"]["why"], "$defs": schema["$defs"]})
    assert code == 1
    assert [(each["job_id"], each["state"], each["runs"]) for each in found] == [
        (job.id, "available", False),
        (99, None, False),
    ]
    (reason,) = found[0]["reasons"]
    assert (reason["code"], reason["commands"]) == ("no_node", ["oban start --queues mail:10"])


def test_texts_of_jobs_cannot_control_the_terminal(terminals: Terminals, oban: SyncOban) -> None:
    job = oban.enqueue(Job(worker="app.A"))
    worker, queue = "a\x1b[2Jb[red]", "c\x1b[31md\n"
    with oban.engine.begin() as connection:
        connection.execute(update(Job.__table__).values(worker=worker, queue=queue))
    with terminals.open("why", str(job.id), columns=200, environment={"NO_COLOR": "1"}) as terminal:
        assert terminal.finish() == 0
        assert b"\x1b[2J" not in terminal.output
        assert b"\x1b[31m" not in terminal.output
        assert r"queue 'c\x1b[31md\n', worker 'a\x1b[2Jb[red]'" in terminal.text


def test_output_for_other_programs_has_no_colours_and_whole_lines(oban: SyncOban) -> None:
    job = oban.enqueue(Job(worker="app.A"))
    result = commands.invoke("why", str(job.id))
    assert result.output.splitlines() == [
        f"Job {job.id} (available, queue default, worker app.A): No node is alive at all. No live node runs"
        " the queue default.",
        "  Start a node that runs it:",
        "    oban start --queues default:10",
    ]


@pytest.mark.parametrize("arguments", [[], ["seven"], ["1", "--nonsense"]])
def test_wrong_usage_is_told(terminals: Terminals, url: URL, arguments: list[str]) -> None:
    code, lines = terminals.run("why", *arguments)
    assert code == 2
    assert lines[0].startswith("Usage: ")
