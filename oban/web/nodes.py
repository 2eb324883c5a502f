"""The page `nodes`, and the page of the processes of one node."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import load_only
from starlette.responses import Response

from oban import Job
from oban.amounts import duration
from oban.progress import Progress
from oban.repository.nodes import NodeInfo
from oban.web import job_links
from oban.web.errors import NotFound
from oban.web.routing import Page
from oban.web.visit import Visit

#: How many nodes and queues of a node the list shows, and how many running jobs a page of a node shows.
NODES, QUEUES, JOBS = 200, 6, 100


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as pages show it.

    Attributes:
        node: What its heartbeats tell.
        status: "leader", "alive" or "dead".
        started_at: When it began to run the first of its queues.
        running: How many jobs it ran at its last heartbeat.
        limit: How many it can run at once; None if it does not tell.
        paused: How many of its queues are paused.
    """

    node: NodeInfo
    status: str
    started_at: datetime
    running: int
    limit: int | None
    paused: int

    @classmethod
    def of(cls, node: NodeInfo) -> "NodeRow":
        limits = [info.limit for info in node.queues if info.limit is not None]
        return cls(
            node=node,
            status="dead" if not node.alive else "leader" if node.leader else "alive",
            started_at=min(info.started_at for info in node.queues),
            running=sum(len(info.running) for info in node.queues),
            limit=sum(limits) if limits else None,
            paused=sum(info.paused for info in node.queues),
        )


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a node ran at its last heartbeat, with its progress if it tells any."""

    job: Job
    progress: Progress | None


async def show(visit: Visit) -> Response:
    """`GET /nodes`."""
    async with visit.read() as session:
        nodes = await visit.oban.list_nodes(session)
    # Those that need attention come first.
    rows = sorted(map(NodeRow.of, nodes), key=lambda row: (row.node.alive, row.node.node))
    return visit.render(
        "nodes.html",
        rows=rows[:NODES],
        number=len(rows),
        dead=sum(not row.node.alive for row in rows),
        rescue=_rescue(visit, nodes),
        shown_queues=QUEUES,
        instance=visit.oban.options.name,
    )


async def show_one(visit: Visit) -> Response:
    """`GET /nodes/one?name=…`. Several processes can have the same name."""
    name = visit.request.query_params.get("name", "")
    async with visit.read() as session:
        nodes = await visit.oban.list_nodes(session)
        processes = [node for node in nodes if node.node == name]
        if not processes:
            raise NotFound(f"There is no node {name[:128]!r}: it has stopped, or its jobs have been rescued.")
        jobs = await _running(visit, session, processes)
    return visit.render(
        "node.html",
        name=name,
        rows=[NodeRow.of(node) for node in processes],
        jobs=jobs,
        rescue=_rescue(visit, nodes),
        jobs_link=partial(job_links.jobs, visit),
    )


def _rescue(visit: Visit, nodes: Sequence[NodeInfo]) -> str:
    """When the jobs of dead nodes are rescued."""
    if not any(node.leader for node in nodes):
        return "Their jobs are rescued when a node starts and leads the instance: none does now."
    within = duration(visit.oban.options.rescue_interval)
    return f"The leader rescues their jobs within {within}, and removes them from this list."


async def _running(visit: Visit, session: AsyncSession, nodes: Sequence[NodeInfo]) -> list[RunningJob]:
    """The jobs that nodes ran at their last heartbeats, those that have run for longest first."""
    ids = [id_ for node in nodes for info in node.queues for id_ in info.running if 0 < id_ < 2**63]
    if not ids:
        return []
    columns = (Job.worker, Job.queue, Job.state, Job.attempt, Job.max_attempts, Job.attempted_at, Job.meta)
    # Looked up by the primary key. A node runs at most its limits, but another program can write any list.
    statement = (
        select(Job)
        .where(Job.id.in_(ids[:1000]))
        .order_by(Job.attempted_at, Job.id)
        .options(load_only(*columns))
        .limit(JOBS)
    )
    found = await visit.oban.list_jobs(statement, session)
    # Progress is a part of meta, of which nothing else is shown.
    shows_progress = visit.access.shows("meta")
    return [RunningJob(job, job.current_progress if shows_progress else None) for job in found]


ROUTES = (Page("/nodes", show), Page("/nodes/one", show_one))
