"""Jobs, nodes and settings for tests of `why`, and what its advice does."""

import asyncio
import re
import shlex
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from click.testing import CliRunner
from sqlalchemy import URL, delete, insert

from oban import Explanation, Job, Oban, SyncOban, Worker
from oban.cli import main
from oban.models import Leader, Producer, Queue
from tests.support.jobs import reaches
from tests.support.rows import insert_rows, row

QUEUE = "mail"
#: What a node of this library stores besides what it runs.
LEASE = 60.0


class Explained(Worker, name="tests.Explained", queue=QUEUE):
    async def process(self, job: Job) -> None:
        pass


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Scene:
    """A database with jobs, and with nodes that run or only look as if they did."""

    oban: Oban
    url: URL
    sync: SyncOban
    stack: AsyncExitStack
    #: Values that the expected texts name.
    names: dict[str, Any] = field(default_factory=dict)

    async def job(self, state: str = "available", **columns: Any) -> int:
        """Insert a job, which waits in the queue unless it is changed."""
        values = {"queue": QUEUE, "worker": Explained.worker_name, **columns}
        if state == "available":
            values.setdefault("scheduled_at", now())
        (id_,) = await insert_rows(self.oban.engine, row(state, **values))
        return id_

    async def node(self, **options: Any) -> Oban:
        """Start a node."""
        values: dict[str, Any] = {"node": "worker-1", "queues": {QUEUE: 1}, "poll_interval": 0.05, **options}
        values |= {"control_interval": 0.05, "stage_interval": 0.05}
        return await self.stack.enter_async_context(Oban(self.oban.engine, **values))

    async def heartbeat(
        self,
        node: str = "worker-1",
        queue: str = QUEUE,
        *,
        age: float = 0,
        started: float = 3600,
        name: str = "Oban",
        **meta: Any,
    ) -> str:
        """Insert the row of a node that sent its last heartbeat `age` seconds ago; returns its uuid.

        It was `started` so many seconds ago.
        """
        ours = {"local_limit": 10, "limit": 10, "paused": False, "running": [], "lease": LEASE}
        made = uuid.uuid4()
        times = {
            "started_at": now() - timedelta(seconds=started),
            "updated_at": now() - timedelta(seconds=age),
        }
        values = {key: value for key, value in {**ours, **meta}.items() if value is not None}
        await self._insert(Producer, uuid=made, name=name, node=node, queue=queue, meta=values, **times)
        return str(made)

    async def leader(self, node: str = "worker-2", *, seconds: float = 60) -> None:
        """Insert the row of a leader, whose term ends after so many seconds unless it is extended."""
        times = {"elected_at": now(), "expires_at": now() + timedelta(seconds=seconds)}
        await self._insert(Leader, name="Oban", node=node, **times)

    async def executing(self, owner: str = "", node: str = "worker-1", **columns: Any) -> int:
        """Insert a job that a node executes, since two minutes."""
        values = {"attempted_by": [node, owner], "attempted_at": now() - timedelta(minutes=2), **columns}
        return await self.job("executing", **values)

    async def _insert(self, model: Any, **values: Any) -> None:
        async with self.oban.engine.begin() as connection:
            await connection.execute(insert(model.__table__).values(**values))

    async def why(self, job_id: int) -> Explanation:
        """Ask `Oban` and `SyncOban`, which have to agree."""
        explanation = await self.oban.why(job_id)
        assert without_numbers(self.sync.why(job_id)) == without_numbers(explanation)
        return explanation

    async def follow(self, command: str) -> None:
        """Run a command."""
        program, *arguments = shlex.split(command)
        assert program == "oban"
        arguments += ["--database-url", self.url.render_as_string(hide_password=False)]
        # The command has an event loop of its own.
        result = await asyncio.to_thread(CliRunner().invoke, main, arguments)
        assert result.exit_code == 0, result.output

    async def runs(self, job_id: int) -> None:
        """Wait until the job has run."""
        await reaches(self.oban, job_id, "completed")  # type: ignore[arg-type]


@contextmanager
def sync_client(url: URL) -> Iterator[SyncOban]:
    driver = "sqlite" if "sqlite" in url.drivername else "postgresql+psycopg"
    with SyncOban(url.set(drivername=driver)) as made:
        yield made


@asynccontextmanager
async def scene(oban: Oban, url: URL, sync: SyncOban | None = None) -> AsyncIterator[Scene]:
    """A scene without jobs and nodes."""
    async with AsyncExitStack() as stack:
        if sync is None:
            sync = stack.enter_context(sync_client(url))
        async with oban.engine.begin() as connection:
            for model in (Job, Producer, Leader, Queue):
                await connection.execute(delete(model))
        yield Scene(oban, url, sync, stack)


def without_numbers(explanation: Explanation) -> str:
    """An explanation without the numbers that differ from one second to the next."""
    return re.sub(r"\d+( seconds?)?", "#", repr(explanation))
