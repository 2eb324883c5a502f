"""Encrypted args are shown nowhere: not in errors, logs, events, and by no command."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import URL, text

from oban import Cancel, Job, JobState, Oban, Worker
from oban.errors import InvalidJob
from oban.registry import registry
from oban.telemetry import Event, JobEnded, JobEvent, JobsEnqueued
from tests.support.commands import invoke
from tests.support.commands import text as url_text
from tests.support.jobs import reaches
from tests.support.options import FAST_POLLING
from tests.support.waiting import eventually
from tests.telemetry.encrypted_workers import KEY, FailsInChild

pytestmark = pytest.mark.usefixtures("own_registry")

SECRET = "4111-1111-1111-1111"
ARGS = {"card": SECRET, "owner": {"name": "Ada Lovelace"}}
ENDED = (JobState.DISCARDED, JobState.CANCELLED, JobState.COMPLETED, JobState.RETRYABLE)


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    return sqlite_url


@pytest.fixture
async def node(url: URL) -> AsyncIterator[Oban]:
    async with Oban(url, queues={"default": 1}, periodic=[], **FAST_POLLING) as oban:
        yield oban


class Tells(Worker, encrypt=KEY, max_attempts=1):
    """Tells its args wherever it can, and then ends as they say."""

    async def process(self, job: Job) -> Cancel:
        job.log.warning("charging %s of %s", job.args["card"], job.args)
        job.progress(1, 2, f"charging {job.args['card']}")
        if job.args.get("cancel"):
            return Cancel(f"card {job.args['card']} is blocked")
        try:
            raise KeyError(job.args["owner"]["name"])
        except KeyError as error:
            raise ValueError(f"refused {job.args['card']!r}: {job.args}") from error


def shows(told: str) -> list[str]:
    return [value for value in (SECRET, "Ada Lovelace") if value in told]


async def everything(oban: Oban) -> str:
    """All columns of all tables as the database has them."""
    async with oban.engine.connect() as connection:
        tables = ("oban_jobs", "oban_attempts", "oban_periodic", "oban_producers")
        found = [(await connection.execute(text(f"SELECT * FROM {table}"))).all() for table in tables]
    return repr(found)


@pytest.mark.parametrize(
    "make",
    [lambda: Tells.new(ARGS), lambda: Tells.new({**ARGS, "cancel": True}), lambda: FailsInChild.new(ARGS)],
    ids=["fails", "cancels", "fails in a child"],
)
async def test_an_attempt_shows_no_args(
    node: Oban, make: Callable[[], Job], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    events: list[Event] = []
    node.telemetry.attach(events.append, JobsEnqueued, JobEvent)
    with caplog.at_level(logging.DEBUG):
        ended = await reaches(node, await node.enqueue(make()), *ENDED)
    assert ended.state in (JobState.DISCARDED, JobState.CANCELLED)
    assert "[redacted]" in ended.errors[-1]["error"]
    assert shows(await everything(node)) == []
    logged = [f"{caplog.handler.format(record)} {record.__dict__}" for record in caplog.records]
    assert logged
    assert shows("\n".join(logged)) == []
    enqueued, started, last = events
    assert isinstance(enqueued, JobsEnqueued)
    assert isinstance(started, JobEvent)
    assert isinstance(last, JobEnded)
    assert last.error is not None
    assert shows(last.error + repr(events)) == []
    for view in (*enqueued.jobs, started.job, last.job):
        assert view.args == {"encrypted": "[encrypted]"}
        assert shows(view.redacted(f"charging {SECRET} of Ada Lovelace")) == []


async def test_a_producer_logs_no_args_and_commands_no_tags(
    node: Oban, url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    job = await node.enqueue(Tells.new(ARGS, tags=[SECRET], schedule_in=60))
    with caplog.at_level(logging.INFO):
        job.log.info("charging %s", SECRET)

    result = await asyncio.to_thread(invoke, "jobs", "show", str(job.id), "--database-url", url_text(url))

    assert result.exit_code == 0, result.output
    assert shows(caplog.text + result.output) == []


@pytest.mark.parametrize("is_known", [True, False], ids=["with the worker", "without it"])
def test_commands_show_an_envelope_as_encrypted(url: URL, is_known: bool) -> None:
    class Pays(Worker, encrypt=KEY, name="Pays", cron="@daily", args=ARGS):
        async def process(self, job: Job) -> None: ...

    async def enqueue() -> Job:
        async with Oban(url, queues={"other": 1}, **FAST_POLLING) as oban:
            await eventually(oban.list_periodic)
            await oban.update_periodic("Pays", args=ARGS)
            return await oban.enqueue(Pays.new(ARGS))

    job = asyncio.run(enqueue())
    if not is_known:
        registry.remove("Pays")
    at = ("--database-url", url_text(url))
    told = []
    for command in (
        ("jobs", "list"),
        ("jobs", "list", "--json"),
        ("jobs", "show", str(job.id)),
        ("jobs", "show", str(job.id), "--json"),
        ("periodic", "show", "Pays"),
        ("periodic", "list", "--json"),
    ):
        result = invoke(*command, *at, COLUMNS="300")
        assert result.exit_code == 0, result.output
        assert "[encrypted]" in result.output, command
        told.append(result.output)
    assert shows("".join(told)) == []
    assert "gAAAA" not in "".join(told)
    assert json.loads(told[3])["args"] == {"encrypted": "[encrypted]"}


async def test_errors_of_the_producer_show_no_args() -> None:
    from pydantic import BaseModel, field_validator

    class Charge(BaseModel):
        card: str

        @field_validator("card")
        @classmethod
        def check(cls, value: str) -> str:
            raise ValueError(f"bad card {value}")

    class Typed(Worker[Charge], encrypt=KEY):
        async def process(self, job: Job) -> None: ...

    with pytest.raises(InvalidJob, match="bad card") as caught:
        Typed.new({"card": SECRET})  # type: ignore[arg-type]
    assert shows(str(caught.value)) == []
    made: Any = Tells.new(ARGS)
    assert shows(repr(made) + repr(vars(made)) + str(made)) == []
