"""`Operations`: what commands and the JSON API ask an instance, and let it do."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from oban import suggestions
from oban.client import Oban
from oban.diagnosis.explanation import Explanation
from oban.diagnosis.health_findings import Health, Thresholds
from oban.documents import actions, queue_commands
from oban.documents.actions import Action
from oban.documents.choice import ORDERS, Choice, Sort
from oban.documents.jobs import Changes
from oban.documents.queue_commands import QueueChange, QueueVerb
from oban.errors import JobNotFound, PeriodicNotFound
from oban.models import Attempt, Job
from oban.periodic import Periodic, PeriodicInfo, find_name
from oban.repository.nodes import NodeInfo
from oban.repository.stats import Stats

PeriodicVerb: TypeAlias = Literal["pause", "resume", "update", "reset", "delete"]
#: The keys of a new periodic entry that are about its times. All others are fields of its jobs.
TIMING = ("timezone", "catch_up", "window")


class Operations(ABC):
    """What an instance can be asked and told, wherever its database is."""

    @abstractmethod
    async def list_jobs(self, choice: Choice, sort: Sort, limit: int) -> list[Job]:
        """Up to `limit` jobs."""

    @abstractmethod
    async def show_job(self, job_id: int) -> tuple[Job | None, list[Attempt]]:
        """A job and its attempts."""

    @abstractmethod
    async def wait(self, job_id: int, timeout: timedelta | None) -> tuple[Job | None, bool]:
        """A job once it has ended, and True; or the job as it is after the timeout, and False."""

    @abstractmethod
    async def plan(self, action: Action, choice: Choice) -> Changes:
        """What an action would do."""

    @abstractmethod
    async def change(self, action: Action, choice: Choice, changes: Mapping[str, Any]) -> Changes:
        """Do something to jobs."""

    @abstractmethod
    async def why(self, job_ids: Sequence[int]) -> list[Explanation]:
        """Why jobs do not run."""

    @abstractmethod
    async def stats(self, count_limit: int | None) -> Stats:
        """The numbers of jobs, and what queues and nodes do."""

    @abstractmethod
    async def list_nodes(self) -> list[NodeInfo]:
        """The nodes."""

    @abstractmethod
    async def command_queue(
        self, verb: QueueVerb, queue: str, node: str | None, **options: Any
    ) -> QueueChange:
        """Send a command to the nodes that run a queue."""

    @abstractmethod
    async def list_periodic(self) -> list[PeriodicInfo]:
        """The periodic entries."""

    @abstractmethod
    async def find_periodic(self, name: str) -> PeriodicInfo:
        """An entry by its name; raises `PeriodicNotFound`."""

    @abstractmethod
    async def add_periodic(self, name: str, expression: str, options: Mapping[str, Any]) -> PeriodicInfo:
        """Add an entry. The options are `worker`, other fields of its jobs, and those in `TIMING`."""

    @abstractmethod
    async def change_periodic(
        self, verb: PeriodicVerb, name: str, changes: Mapping[str, Any] | None = None
    ) -> PeriodicInfo:
        """Change an entry, and return it; if it is deleted, as it was."""

    @abstractmethod
    async def run_periodic(self, name: str) -> Job:
        """Insert a job of an entry."""

    @abstractmethod
    async def health(self, thresholds: Thresholds, skip: Collection[str], timeout: float) -> Health:
        """Check the database, nodes and queues."""


@dataclass(frozen=True, slots=True)
class DatabaseOperations(Operations):
    """Operations on the database of a client.

    Attributes:
        oban: The client.
        session: The session that they join (default: each has transactions of its own).
    """

    oban: Oban
    session: AsyncSession | None = None

    async def list_jobs(self, choice: Choice, sort: Sort, limit: int) -> list[Job]:
        statement = choice.statement().order_by(*ORDERS[sort])
        return await self.oban.list_jobs(statement, self.session, limit=limit)

    async def show_job(self, job_id: int) -> tuple[Job | None, list[Attempt]]:
        job = await self.oban.get_job(job_id, self.session)
        return job, await self.oban.list_attempts(job_id, self.session)

    async def wait(self, job_id: int, timeout: timedelta | None) -> tuple[Job | None, bool]:
        try:
            return await self.oban.wait(job_id, timeout), True
        except TimeoutError:
            return await self.oban.get_job(job_id), False
        except JobNotFound:
            return None, False

    async def plan(self, action: Action, choice: Choice) -> Changes:
        return await actions.plan(self.oban, action, choice, self.session)

    async def change(self, action: Action, choice: Choice, changes: Mapping[str, Any]) -> Changes:
        return await actions.change(self.oban, action, choice, changes, self.session)

    async def why(self, job_ids: Sequence[int]) -> list[Explanation]:
        return [await self.oban.why(job_id, self.session) for job_id in job_ids]

    async def stats(self, count_limit: int | None) -> Stats:
        return await self.oban.stats(self.session, count_limit=count_limit)

    async def list_nodes(self) -> list[NodeInfo]:
        return await self.oban.list_nodes(self.session)

    async def command_queue(
        self, verb: QueueVerb, queue: str, node: str | None, **options: Any
    ) -> QueueChange:
        return await queue_commands.command_queue(self.oban, verb, queue, node, self.session, **options)

    async def list_periodic(self) -> list[PeriodicInfo]:
        return await self.oban.list_periodic(self.session)

    async def find_periodic(self, name: str) -> PeriodicInfo:
        wanted = find_name(name)
        entries = await self.list_periodic()
        found = next((info for info in entries if info.name == wanted), None)
        if found is None:
            known = [info.name for info in entries]
            raise PeriodicNotFound(wanted, suggestions.suggestion(wanted, known) if known else "")
        return found

    async def add_periodic(self, name: str, expression: str, options: Mapping[str, Any]) -> PeriodicInfo:
        timing: Any = {key: value for key, value in options.items() if key in TIMING}
        fields: Any = {key: value for key, value in options.items() if key not in TIMING}
        new = Periodic(name, expression, Job(**fields), **timing)
        return await self.oban.add_periodic(new, self.session)

    async def change_periodic(
        self, verb: PeriodicVerb, name: str, changes: Mapping[str, Any] | None = None
    ) -> PeriodicInfo:
        match verb:
            case "pause":
                await self.oban.pause_periodic(name, self.session)
            case "resume":
                await self.oban.resume_periodic(name, self.session)
            case "update":
                values: Any = dict(changes or {})
                return await self.oban.update_periodic(name, self.session, **values)
            case "reset":
                return await self.oban.reset_periodic(name, self.session)
            case "delete":
                info = await self.find_periodic(name)
                await self.oban.delete_periodic(name, self.session)
                return info
        return await self.find_periodic(name)

    async def run_periodic(self, name: str) -> Job:
        return await self.oban.run_periodic(name, self.session)

    async def health(self, thresholds: Thresholds, skip: Collection[str], timeout: float) -> Health:
        return await self.oban.health(thresholds, skip=skip, timeout=timeout)
