"""`RemoteOperations`: the operations of commands, through the JSON API of a dashboard."""

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from oban.cli.remote import rebuilt
from oban.cli.remote.connection import Connection, NotThere
from oban.diagnosis.explanation import Explanation
from oban.diagnosis.health_findings import Health, Thresholds
from oban.documents.actions import Action
from oban.documents.choice import Choice, Sort
from oban.documents.jobs import Changes, JobDetails, JobDocument
from oban.documents.operations import Operations, PeriodicVerb
from oban.documents.queue_commands import QueueChange, QueueVerb
from oban.models import Attempt, Job
from oban.periodic import PeriodicInfo
from oban.polling import Polling
from oban.repository.nodes import NodeInfo
from oban.repository.stats import Stats
from oban.types import ENDED_STATES, STATES

#: The limits of the API.
_PAGE, _IDS, _TIMEOUT = 500, 500, 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Page:
    jobs: list[JobDocument]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch(Changes):
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class RemoteOperations(Operations):
    """Operations through the API.

    Attributes:
        api: The connection to it.
    """

    api: Connection

    async def list_jobs(self, choice: Choice, sort: Sort, limit: int) -> list[Job]:
        found: list[Job] = []
        cursor: dict[str, str] = {}
        while True:
            size = min(limit - len(found), _PAGE)
            query = {**choice.filters, "sort": sort, "limit": size, **cursor}
            page = await self.api.get("jobs", _Page, query)
            found += map(rebuilt.job, page.jobs)
            if page.next_cursor is None or len(found) >= limit:
                return found
            cursor = {"cursor": page.next_cursor}

    async def show_job(self, job_id: int) -> tuple[Job | None, list[Attempt]]:
        try:
            document = await self.api.get(f"jobs/{job_id}", JobDetails)
        except NotThere:
            return None, []
        return rebuilt.job(document), rebuilt.attempts(document)

    async def wait(self, job_id: int, timeout: timedelta | None) -> tuple[Job | None, bool]:
        polling = Polling(timeout, f"job {job_id} has not ended")
        while True:
            job, _ = await self.show_job(job_id)
            if job is None or job.state in ENDED_STATES:
                return job, job is not None
            try:
                await asyncio.sleep(polling.pause())
            except TimeoutError:
                return job, False

    async def plan(self, action: Action, choice: Choice) -> Changes:
        parts = await self._change(action, choice, {"dry_run": True})
        would_change, would_leave = Counter[str](), Counter[str]()
        for part in parts:
            would_change.update(part.would_change or {})
            would_leave.update(part.would_leave or {})
        return Changes(
            dry_run=True,
            changed=would_change.total(),
            would_change={state: would_change[state] for state in STATES if would_change[state]},
            would_leave={state: would_leave[state] for state in STATES if would_leave[state]},
            left_alone=[left for part in parts for left in part.left_alone],
        )

    async def change(self, action: Action, choice: Choice, changes: Mapping[str, Any]) -> Changes:
        values = {name: _plain(value) for name, value in changes.items() if value is not None}
        parts = await self._change(action, choice, {"changes": values} if values else {})
        return Changes(
            dry_run=False,
            changed=sum(part.changed for part in parts),
            left_alone=[left for part in parts for left in part.left_alone],
        )

    async def _change(self, action: Action, choice: Choice, options: Mapping[str, Any]) -> list[_Batch]:
        """The answers about all parts of the jobs, of which each is changed in a transaction of its own."""
        found: list[_Batch] = []
        for chosen in _targets(choice):
            body: dict[str, Any] = {**chosen, **options}
            while True:
                batch = await self.api.post(f"jobs/{action.verb}", _Batch, body)
                found.append(batch)
                if batch.next_cursor is None:
                    break
                body["cursor"] = batch.next_cursor
        return found

    async def why(self, job_ids: Sequence[int]) -> list[Explanation]:
        return [await self.api.get(f"jobs/{job_id}/why", Explanation) for job_id in job_ids]

    async def stats(self, count_limit: int | None) -> Stats:
        found: Stats = await self.api.get("stats", Stats, {"count_limit": count_limit or 0})
        return found

    async def list_nodes(self) -> list[NodeInfo]:
        found: list[NodeInfo] = await self.api.get("nodes", list[NodeInfo])
        return found

    async def command_queue(
        self, verb: QueueVerb, queue: str, node: str | None, **options: Any
    ) -> QueueChange:
        body = {"queue": queue, "node": node, **options}
        found: QueueChange = await self.api.post(f"queues/{verb}", QueueChange, body)
        return found

    async def list_periodic(self) -> list[PeriodicInfo]:
        found: list[PeriodicInfo] = await self.api.get("periodic", list[PeriodicInfo])
        return found

    async def find_periodic(self, name: str) -> PeriodicInfo:
        [found] = await self.api.get("periodic", list[PeriodicInfo], {"name": name})
        info: PeriodicInfo = found
        return info

    async def add_periodic(self, name: str, expression: str, options: Mapping[str, Any]) -> PeriodicInfo:
        body = {"name": name, "expression": expression, **options}
        found: PeriodicInfo = await self.api.post("periodic", PeriodicInfo, body)
        return found

    async def change_periodic(
        self, verb: PeriodicVerb, name: str, changes: Mapping[str, Any] | None = None
    ) -> PeriodicInfo:
        body = {"name": name} if changes is None else {"name": name, "changes": changes}
        found: PeriodicInfo = await self.api.post(f"periodic/{verb}", PeriodicInfo, body)
        return found

    async def run_periodic(self, name: str) -> Job:
        return rebuilt.job(await self.api.post("periodic/run", JobDocument, {"name": name}))

    async def health(self, thresholds: Thresholds, skip: Collection[str], timeout: float) -> Health:
        figures = {each.name: getattr(thresholds, each.name) for each in fields(thresholds)}
        query = {**figures, "skip": [*skip], "timeout": min(timeout, _TIMEOUT)}
        found: Health = await self.api.get("health", Health, query)
        return found


def _targets(choice: Choice) -> Iterator[dict[str, Any]]:
    """The jobs as bodies name them, with as many ids as a body can have."""
    chosen: dict[str, Any] = {"filter": dict(choice.filters)} if choice.filters else {}
    if choice.everything:
        yield {"all": True}
    elif choice.ids:
        ids = sorted(choice.ids)
        for start in range(0, len(ids), _IDS):
            yield {**chosen, "ids": ids[start : start + _IDS]}
    else:
        yield chosen


def _plain(value: Any) -> Any:
    """A new value of a field, for JSON."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else value
