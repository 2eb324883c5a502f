"""The answers of `Oban` and of `SyncOban` to questions about their instance."""

from oban.config import Options
from oban.database.aio import Database
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.sync import SyncDatabase
from oban.diagnosis.explain import explain
from oban.diagnosis.explanation import Explanation
from oban.inspection_operations import InspectionOperations
from oban.repository import nodes, stats
from oban.repository.nodes import NodeInfo
from oban.repository.selection import Target, parse_id
from oban.repository.stats import Stats


class AsyncInspection(InspectionOperations[AsyncCaller]):
    """The answers of `Oban`."""

    options: Options
    _database: Database

    async def stats(self, session: AsyncCaller | None = None, *, count_limit: int | None = None) -> Stats:
        limit = stats.check_limit(count_limit)
        return await self._database.read_in(session, stats.load_stats, self.options.name, limit)

    async def list_nodes(self, session: AsyncCaller | None = None) -> list[NodeInfo]:
        return await self._database.read_in(session, nodes.list_nodes, self.options.name)

    async def why(self, job_or_id: Target, session: AsyncCaller | None = None) -> Explanation:
        return await self._database.read_in(session, explain, parse_id(job_or_id), self.options)


class SyncInspection(InspectionOperations[SyncCaller]):
    """The answers of `SyncOban`."""

    options: Options
    _database: SyncDatabase

    def stats(self, session: SyncCaller | None = None, *, count_limit: int | None = None) -> Stats:
        limit = stats.check_limit(count_limit)
        return self._database.read_in(session, stats.load_stats, self.options.name, limit)

    def list_nodes(self, session: SyncCaller | None = None) -> list[NodeInfo]:
        return self._database.read_in(session, nodes.list_nodes, self.options.name)

    def why(self, job_or_id: Target, session: SyncCaller | None = None) -> Explanation:
        return self._database.read_in(session, explain, parse_id(job_or_id), self.options)
