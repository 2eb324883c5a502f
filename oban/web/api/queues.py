"""`GET api/queues` and the commands for queues below it."""

import functools
from typing import Annotated, Any

from pydantic import Field

from oban.config import MAX_LIMIT
from oban.documents.operations import DatabaseOperations
from oban.documents.queue_commands import QueueChange, QueueVerb
from oban.repository.stats import QueueStats
from oban.web.api.bodies import Body
from oban.web.api.instance import StatsQuery
from oban.web.api.routing import ApiAction, ApiPage
from oban.web.visit import Visit

Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]


class QueueCommand(Body):
    """Which queue a command is for."""

    queue: str = Field(description="The name of the queue.")
    node: str | None = Field(default=None, description="Only the node of this name; null for all nodes.")


class QueuesCommand(QueueCommand):
    """Which queue, or all queues, a command is for."""

    queue: str = Field(description="The name of the queue; * for all queues.")


class ScaleQueue(QueueCommand):
    """Which queue is scaled, and to what."""

    limit: Limit | None = Field(
        description="How many of its jobs each node runs at once; null restores the configured limit."
    )


class StartQueue(QueueCommand):
    """Which queue is started, and how."""

    limit: Limit = Field(default=10, description="How many of its jobs each node runs at once.")
    paused: bool = Field(default=False, description="Whether it fetches no jobs until it is resumed.")


async def list_(visit: Visit, query: StatsQuery) -> list[QueueStats]:
    """`GET /api/queues`."""
    async with visit.read() as session:
        found = await DatabaseOperations(visit.oban, session).stats(query.count_limit or None)
    return [*found.queues]


async def _command(verb: QueueVerb, visit: Visit, body: QueueCommand) -> QueueChange:
    options: dict[str, Any] = body.model_dump(exclude={"queue", "node"})
    async with visit.write() as session:
        operations = DatabaseOperations(visit.oban, session)
        change = await operations.command_queue(verb, body.queue, body.node, **options)
    on_node = "" if body.node is None else f" on {body.node}"
    visit.audit(f"{verb}_queue", target=f"{body.queue}{on_node}", count=1)
    return change


def _route(verb: QueueVerb, body: type[QueueCommand], summary: str, **example: Any) -> ApiAction:
    return ApiAction(
        path=f"/api/queues/{verb}",
        handler=functools.partial(_command, verb),
        permission="manage_queues",
        summary=summary,
        about="The command is stored, also for nodes that start later.",
        body=body,
        answer=QueueChange,
        example={"queue": "mail", **example},
    )


ROUTES = (
    ApiPage(
        path="/api/queues",
        handler=list_,
        summary="List the queues with their jobs and nodes",
        query=StatsQuery,
        answer=list[QueueStats],
    ),
    _route("pause", QueuesCommand, "Let a queue fetch no more jobs"),
    _route("resume", QueuesCommand, "Let a queue fetch jobs again"),
    _route("scale", ScaleQueue, "Set how many jobs of a queue each node runs at once", limit=20),
    _route("start", StartQueue, "Run a queue, whether or not it is configured", limit=10),
    _route("stop", QueueCommand, "Stop running a queue", node="web-1"),
)
