import pytest
from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig, SQLAlchemyPlugin
from litestar import Litestar, post
from litestar.di import NamedDependency
from litestar.testing import TestClient
from sqlalchemy import AsyncAdaptedQueuePool, NullPool, event, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

import app as page
from app import SendWelcome
from oban import Job
from test_app import client, oban


@pytest.fixture(params=["null", "queue"])
def engine(oban, request):
    pool = NullPool if request.param == "null" else AsyncAdaptedQueuePool
    return create_async_engine(oban.engine.url.set(drivername="sqlite+aiosqlite"), poolclass=pool)


@pytest.fixture
def connections(engine):
    """The open connections of the engine."""
    opened = []
    event.listen(engine.sync_engine, "connect", lambda connection, _: opened.append(connection))
    event.listen(engine.sync_engine, "close", lambda connection, _: opened.remove(connection))
    return opened


without_pool = pytest.mark.parametrize("engine", ["null"], indirect=True)


@without_pool
def test_sessions_are_closed_and_what_failed_left_nothing(oban, engine, connections):
    with TestClient(page.create_app(engine)) as client:
        for _ in range(12):
            client.post("/users", json={"email": "ann@example.com"})
        assert client.post("/users", json={}).status_code == 500
        assert connections == []
    assert len(oban.list_jobs()) == 1


def test_a_job_is_retried(client, oban):
    job = oban.enqueue(SendWelcome.new({"user_id": 1}))
    oban.cancel_job(job)
    assert client.post(f"/jobs/{job.id}/retry").json() == {"retried": True}
    assert oban.get_job(job.id).state == "available"


@pytest.mark.parametrize("engine", ["queue"], indirect=True)
def test_the_server_runs_jobs_and_closes_its_connections(oban, engine, monkeypatch):
    monkeypatch.setattr(page, "create_engine", lambda: engine)
    import server

    with TestClient(server.app) as client:
        client.post("/users", json={"email": "ann@example.com"})
        (job,) = oban.list_jobs()
        assert oban.wait(job, timeout=60).state == "completed"
    assert (engine.pool.checkedin(), engine.pool.checkedout()) == (0, 0)


@without_pool
def test_the_error_of_an_autocommit_does_not_reach_the_client(oban, engine):
    with oban.engine.begin() as connection:
        reference = "REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED"
        connection.execute(text(f"CREATE TABLE children (id INTEGER {reference})"))

    @event.listens_for(engine.sync_engine, "connect")
    def enforce(connection, _):
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @post("/children")
    async def add(db_session: NamedDependency[AsyncSession]) -> None:
        await db_session.execute(text("INSERT INTO children VALUES (77)"))
        db_session.add(Job(worker="app.Lost"))

    database = SQLAlchemyAsyncConfig(engine_instance=engine, before_send_handler="autocommit")
    with TestClient(Litestar([add], plugins=[SQLAlchemyPlugin(config=database)])) as client:
        assert client.post("/children").status_code == 201
    assert oban.list_jobs() == []


@without_pool
def test_a_dependency_commits_after_the_handler(oban, engine, connections, monkeypatch):
    monkeypatch.setattr(page, "create_engine", lambda: engine)
    import plain

    with TestClient(plain.app) as client:
        assert client.post("/welcomes/3").status_code == 201
        assert connections == []
    assert [job.args for job in oban.list_jobs()] == [{"user_id": 3}]


def test_the_command_runs_the_queue_on_the_database_of_the_application(oban, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{oban.engine.url.database}")
    node = page.create_oban()
    assert (node.engine.url.database, list(node.options.queues)) == (oban.engine.url.database, ["mailers"])
