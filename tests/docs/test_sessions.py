"""The snippets of `docs/guides/sessions.md` run unchanged and have the documented effect."""

import textwrap
from typing import Any

import pytest
from sqlalchemy import URL, Delete, Insert, Update, create_engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

from oban import Job, JobState, Oban, Worker
from oban.errors import InvalidTarget
from tests.docs.snippets import fenced
from tests.support.databases import Factory
from tests.support.jobs import reaches
from tests.support.routers import unused_engine

FACTORY, ROLE, BINDS, ROUTER, LEVEL = fenced("docs/guides/sessions.md", "python")


class Base(DeclarativeBase):
    """The application's models."""


class Confirm(Worker, name="tests.Confirm"):
    async def process(self, job: Any) -> None: ...


@pytest.fixture
def factory(asyncpg_factory: Factory) -> Factory:
    """PostgreSQL, which has roles."""
    return asyncpg_factory


async def test_jobs_get_sessions_of_the_class_of_the_application(url: URL) -> None:
    class AppSession(AsyncSession):
        pass

    class AppSyncSession(Session):
        pass

    seen: list[Any] = []

    class OnLoop(Worker):
        async def process(self, job: Job, session: AsyncSession) -> None:
            seen.append(type(session))

    class InThread(Worker):
        def process(self, job: Job, session: Session) -> None:
            seen.append(type(session))

    names: dict[str, Any] = {"async_sessionmaker": async_sessionmaker, "engine": url, "Oban": Oban}
    names |= {"AppSession": AppSession, "AppSyncSession": AppSyncSession}
    exec(FACTORY, names)
    async with names["oban"] as oban:
        for worker in (OnLoop, InThread):
            await reaches(oban, await oban.enqueue(worker.new()), JobState.COMPLETED)
    assert seen == [AppSession, AppSyncSession]


async def test_the_listener_sets_the_role_of_every_transaction(url: URL) -> None:
    admin = create_engine(url.set(drivername="postgresql+psycopg"))
    with admin.begin() as connection:
        connection.exec_driver_sql(
            "DO $$ BEGIN CREATE ROLE app; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO app;"
            "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;"
            "ALTER TABLE oban_jobs ADD role text DEFAULT current_user;"
        )
    admin.dispose()
    engine = create_async_engine(url)
    exec(ROLE, {"engine": engine, "event": event})
    oban = Oban(engine)
    await oban.enqueue(Confirm.new())
    await oban.enqueue_many([Confirm.new(), Confirm.new()])
    async with engine.connect() as connection:
        assert list((await connection.scalars(text("SELECT role FROM oban_jobs"))).all()) == ["app"] * 3
    await engine.dispose()


async def test_the_sessions_for_several_databases_write_jobs_to_their_own(url: URL) -> None:
    engine = create_async_engine(url)
    names: dict[str, Any] = {"engine": engine, "replica": unused_engine(), "reports_engine": unused_engine()}
    names |= {"async_sessionmaker": async_sessionmaker, "Base": Base, "Session": Session}
    names |= {"Insert": Insert, "Update": Update, "Delete": Delete}
    oban = Oban(engine)
    for snippet, factory in ((BINDS, "sessions"), (ROUTER, "routed")):
        exec(snippet, names)
        async with names[factory]() as session:
            job = await oban.enqueue(Confirm.new(), session=session)
            assert await oban.cancel_job(job, session=session)
            await session.commit()
    assert [str(job.state) for job in await oban.list_jobs()] == ["cancelled"] * 2
    await engine.dispose()


async def test_a_session_with_transactions_can_write_on_an_engine_in_autocommit(url: URL) -> None:
    engine = create_async_engine(url, isolation_level="AUTOCOMMIT")
    oban = Oban(engine)
    names: dict[str, Any] = {"engine": engine, "oban": oban, "AsyncSession": AsyncSession, "Confirm": Confirm}
    async with AsyncSession(engine) as session:
        with pytest.raises(InvalidTarget):
            await oban.enqueue(Confirm.new(), session=session)
        assert await oban.list_jobs(session=session) == []
    exec("async def run():\n" + textwrap.indent(LEVEL, "    "), names)
    await names["run"]()
    assert [job.args for job in await oban.list_jobs()] == [{"order": 7}]
    await engine.dispose()
