"""What the dashboard knows about workers and queues: names to suggest, the type of args, and warnings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only

from oban.client import Oban
from oban.models import Job
from oban.registry import registry

#: How many of the newest jobs are looked at for names of workers and queues.
_RECENT = 200
#: How many names are suggested.
SUGGESTED = 300
_columns: Any = (Job.worker, Job.queue)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a form for a new job suggests.

    Attributes:
        workers: Names of workers: those of this process, of periodic entries and of recent jobs.
        queues: Names of queues: those that live nodes run, of this process's workers and of recent jobs.
        run: The queues that live nodes run.
        run_workers: The workers that live nodes know; None if one of them does not tell.
    """

    workers: Sequence[str]
    queues: Sequence[str]
    run: frozenset[str]
    run_workers: frozenset[str] | None

    def warnings(self, worker: str, queue: str) -> list[str]:
        """What may keep a job of a worker in a queue from running."""
        found = []
        if queue not in self.run:
            found.append(f"No live node runs the queue {queue}: the job waits until one does.")
        elif self.run_workers is not None and worker not in self.run_workers:
            found.append(f"No live node knows the worker {worker}: an attempt fails there.")
        if worker not in registry:
            found.append(
                f"This dashboard does not know the worker {worker}, so its own options do not apply, and the"
                " type of its args is not checked."
            )
        return found


async def find(oban: Oban, session: AsyncSession) -> Known:
    """Read what there is to suggest."""
    nodes = [node for node in await oban.list_nodes(session) if node.alive]
    entries = await oban.list_periodic(session)
    newest = select(Job).options(load_only(*_columns)).order_by(Job.id.desc()).limit(_RECENT)
    recent = await oban.list_jobs(newest, session)
    own = registry.queues()
    run = frozenset(queue.queue for node in nodes for queue in node.queues)
    told = [node.workers for node in nodes]
    return Known(
        workers=_names([*own, *(entry.worker for entry in entries), *(job.worker for job in recent)]),
        queues=_names([*run, *own.values(), *(job.queue for job in recent)]),
        run=run,
        run_workers=None if None in told else frozenset(name for names in told for name in names or ()),
    )


def _names(found: Sequence[Any]) -> list[str]:
    distinct = {name for name in found if isinstance(name, str) and name.isprintable() and len(name) < 256}
    return sorted(distinct)[:SUGGESTED]


def worker_class(name: str | None) -> Any:
    """The class of a worker in this process that jobs can be made of; None if there is none."""
    cls: Any = registry.get(name) if name else None
    return cls if cls is not None and cls._why_base is None else None


def args_type(name: str | None) -> list[tuple[str, str]]:
    """The fields of the args of a worker of this process, each with its type, if their type is declared."""
    cls = worker_class(name)
    return [] if cls is None or cls._arguments is None else cls._arguments.described()
