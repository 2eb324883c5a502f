"""`GET api/stats`, `api/nodes` and `api/health`."""

from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import Field, create_model

from oban.diagnosis.health import CODES
from oban.diagnosis.health_findings import Health, Thresholds
from oban.documents.operations import DatabaseOperations
from oban.repository.nodes import NodeInfo
from oban.repository.stats import Stats
from oban.web.api.bodies import Query
from oban.web.api.routing import ApiPage
from oban.web.visit import Visit

#: How many jobs of each queue and state are counted, unless a request says otherwise.
COUNT_LIMIT = 10_000
#: Seconds for all checks of the health, at most.
TIMEOUT = 4.0
_Check: Any = Literal[CODES[1:]]


class StatsQuery(Query):
    """How exactly to count."""

    count_limit: int = Field(
        default=COUNT_LIMIT,
        ge=0,
        le=10_000_000,
        description="Count up to this many jobs of each queue and state; 0 counts all.",
    )


class _Checks(Query):
    """Which checks to make."""

    skip: list[_Check] = Field(default_factory=list, description="Checks to leave out.")
    timeout: float = Field(default=TIMEOUT, gt=0, le=TIMEOUT, description="Seconds for all checks.")


_Threshold = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
_THRESHOLDS: Any = {each.name: (_Threshold, getattr(Thresholds(), each.name)) for each in fields(Thresholds)}
#: Which checks to make, and from which figures on something is a problem.
HealthQuery: type[Query] = create_model("HealthQuery", __base__=_Checks, **_THRESHOLDS)


async def stats(visit: Visit, query: StatsQuery) -> Stats:
    """`GET /api/stats`."""
    async with visit.read() as session:
        return await DatabaseOperations(visit.oban, session).stats(query.count_limit or None)


async def nodes(visit: Visit, query: Query) -> list[NodeInfo]:
    """`GET /api/nodes`."""
    async with visit.read() as session:
        return await DatabaseOperations(visit.oban, session).list_nodes()


async def health(visit: Visit, query: Any) -> Health:
    """`GET /api/health`."""
    thresholds = Thresholds(**{name: getattr(query, name) for name in _THRESHOLDS})
    return await DatabaseOperations(visit.oban).health(thresholds, query.skip, query.timeout)


ROUTES = (
    ApiPage(
        path="/api/stats",
        handler=stats,
        summary="Show the numbers of jobs, and what queues and nodes do",
        query=StatsQuery,
        answer=Stats,
    ),
    ApiPage(path="/api/nodes", handler=nodes, summary="List the nodes", answer=list[NodeInfo]),
    ApiPage(
        path="/api/health",
        handler=health,
        summary="Check the database, nodes and queues",
        about="The status is 200 also if there are problems; `severity` is the worst of them.",
        query=HealthQuery,
        answer=Health,
    ),
)
