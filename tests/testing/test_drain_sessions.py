"""Instances of jobs in a session, after they have run."""

from oban import Job, Oban, SyncOban, Worker
from tests.testing.applications import Application, Awaited, with_clients


class Add(Worker, name="tests.Add"):
    def process(self, job: Job) -> None: ...


@with_clients
async def test_the_session_of_a_drain_shows_how_its_jobs_ended(app: Application) -> None:
    async with app.session() as session:
        job = await app.oban.enqueue(Add.new(), session=session.own)
        counts = await app.testing.drain_queue(session=session.own)
        assert (counts["completed"], job.state, job in session.own) == (1, "completed", True)


@with_clients
async def test_the_session_of_a_client_shows_how_its_jobs_ended(app: Application) -> None:
    async with app.session() as session:
        session.own.add(job := Add.new())
        client = Oban(session.own) if app.is_async else SyncOban(session.own)
        # Flushes the session.
        assert len(await Awaited(client).list_jobs()) == 1
        counts = await app.testing.drain_queue(oban=client)
        assert (counts["completed"], job.state) == (1, "completed")
