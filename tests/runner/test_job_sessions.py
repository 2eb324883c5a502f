"""A worker's own transaction: what it writes is stored together with how it ended, or not at all."""

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Cancel, Job, JobState, Oban, Record, Snooze, Worker, current_job
from oban.errors import ConfigError
from tests.runner.effects import FORMS, Effect, Halting, effects, effects_table, worker
from tests.runner.support import BRIEF, FAST_POLLING, NO_POLLING, acknowledged, reaches, row_of
from tests.waiting import eventually

RUNNING: dict[str, Any] = {"queues": {"default": 5}, **BRIEF}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """Whether `process` is async or plain."""
    kind: str = request.param
    return kind


@pytest.fixture
def table(driver_url: URL) -> Iterator[URL]:
    """A database with a table of effects, by driver."""
    with effects_table(driver_url):
        yield driver_url


@pytest.fixture
def one_table(url: URL) -> Iterator[URL]:
    """A database with a table of effects, one on SQLite and one on PostgreSQL."""
    with effects_table(url):
        yield url


def effect(job: Job, session: Session) -> None:
    session.add(Effect(name=f"{job.id}/{job.attempt}"))


def nothing_leaked(oban: Oban) -> bool:
    return oban.engine.pool.checkedout() == 0  # type: ignore[attr-defined, no-any-return]


async def test_what_a_job_writes_is_stored_with_its_completion(table: URL, form: str) -> None:
    seen: list[Any] = []

    def body(job: Job, session: Session) -> None:
        effect(job, session)
        session.flush()
        seen.append((type(session), current_job() is job, session.scalar(text("SELECT 1"))))

    made = worker(form, body)
    async with Oban(table, **RUNNING) as oban:
        job = await oban.enqueue(made.new())
        row = await reaches(oban, job, JobState.COMPLETED)
        assert await effects(oban) == [f"{job.id}/1"]
        assert (row.attempt, row.errors) == (1, [])
        assert row.completed_at is not None
        assert seen == [(Session, True, 1)]
        await eventually(lambda: nothing_leaked(oban))
