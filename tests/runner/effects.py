"""Workers with a job session, async and sync, that write effects for tests to count."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from sqlalchemy import URL, create_engine, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban import Job, Oban, Worker
from tests.support.internals import is_running, session_pool_of
from tests.support.options import BRIEF
from tests.support.waiting import eventually

#: Whether `process` is async or sync.
FORMS = ["async", "thread"]
RUNNING: dict[str, Any] = {"queues": {"default": 5}, **BRIEF}


class Base(DeclarativeBase):
    pass


class Effect(Base):
    """The effect of a job. `name` is unique."""

    __tablename__ = "effects"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)


@contextmanager
def effects_table(url: URL) -> Iterator[None]:
    """Create the table of effects in a database, and drop it at the end."""
    lite = url.get_backend_name() == "sqlite"
    engine = create_engine(url.set(drivername="sqlite" if lite else "postgresql+psycopg"))
    Base.metadata.create_all(engine)
    try:
        yield
    finally:
        Base.metadata.drop_all(engine)
        engine.dispose()


async def effects(oban: Oban) -> list[str]:
    """The names of all stored effects, sorted."""
    async with AsyncSession(oban.engine) as session:
        return list(await session.scalars(select(Effect.name).order_by(Effect.name)))


def effect(job: Job, session: Session) -> None:
    """Write the effect of a run."""
    session.add(Effect(name=f"{job.id}/{job.attempt}"))


def nothing_leaked(oban: Oban) -> bool:
    """Whether every connection is back in the application's pool, and in that of job sessions."""
    pools = [oban.engine.pool, *([session_pool_of(oban)] if is_running(oban) else [])]
    return all(pool.checkedout() == 0 for pool in pools)  # type: ignore[attr-defined]


def worker(form: str, body: Callable[[Job, Session], Any], **options: Any) -> type[Worker]:
    """A worker with a session that runs `body` on the event loop or in a thread."""
    if form == "async":

        class OnLoop(Worker, **options):
            async def process(self, job: Job, session: AsyncSession) -> Any:
                return await session.run_sync(lambda sync: body(job, sync))

        return OnLoop

    class InThread(Worker, **options):
        def process(self, job: Job, session: Session) -> Any:
            return body(job, session)

    return InThread


class Halting:
    """A worker that writes an effect and halts until the test continues it, or halts before it writes."""

    def __init__(self, form: str, *, writes_first: bool, result: object = None, **options: Any) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()
        outer = self

        def write(job: Job, session: Session) -> None:
            effect(job, session)
            session.flush()

        if form == "async":

            class OnLoop(Worker, **options):
                async def process(self, job: Job, session: AsyncSession) -> Any:
                    async with _told(outer.ended):
                        if writes_first:
                            await session.run_sync(lambda sync: write(job, sync))
                        outer.begun.set()
                        await eventually(outer.go.is_set, 20)
                        if not writes_first:
                            await session.run_sync(lambda sync: write(job, sync))
                        return result

            self.worker: type[Worker] = OnLoop
        else:

            class InThread(Worker, **options):
                def process(self, job: Job, session: Session) -> Any:
                    try:
                        if writes_first:
                            write(job, session)
                        outer.begun.set()
                        assert outer.go.wait(20)
                        if not writes_first:
                            write(job, session)
                        return result
                    finally:
                        outer.ended.set()

            self.worker = InThread


@asynccontextmanager
async def _told(ended: threading.Event) -> AsyncIterator[None]:
    try:
        yield
    finally:
        ended.set()
