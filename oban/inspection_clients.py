"""The answers of `Oban` and of `SyncOban` to questions about their instance."""

import asyncio
from collections.abc import Collection

from oban.config import Options
from oban.database.aio import Database
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.sync import SyncDatabase
from oban.diagnosis.explain import explain
from oban.diagnosis.explanation import Explanation
from oban.diagnosis.health import Examination
from oban.diagnosis.health_findings import Health, Thresholds
from oban.inspection_operations import InspectionOperations
from oban.models import Attempt
from oban.repository import attempts, nodes, stats
from oban.repository.nodes import NodeInfo
from oban.repository.selection import Target, parse, parse_id
from oban.repository.stats import Stats
from oban.runner import Node
from oban.runner.node_check import NodeCheck


class AsyncInspection(InspectionOperations[AsyncCaller]):
    """The answers of `Oban`."""

    options: Options
    _database: Database
    _node: Node

    def check_node(self) -> NodeCheck:
        return self._node.check(self.options)

    async def stats(self, session: AsyncCaller | None = None, *, count_limit: int | None = None) -> Stats:
        limit = stats.check_limit(count_limit)
        return await self._database.read_in(session, stats.load_stats, self.options.name, limit)

    async def list_nodes(self, session: AsyncCaller | None = None) -> list[NodeInfo]:
        return await self._database.read_in(session, nodes.list_nodes, self.options.name)

    async def why(self, job_or_id: Target, session: AsyncCaller | None = None) -> Explanation:
        return await self._database.read_in(session, explain, parse_id(job_or_id), self.options)

    async def health(
        self, thresholds: Thresholds | None = None, *, skip: Collection[str] = (), timeout: float = 10.0
    ) -> Health:
        examination = Examination(self.options, thresholds, skip, timeout, self._database.missing_file())
        for check in examination.checks():
            try:
                async with asyncio.timeout(examination.left):
                    found = await self._database.read(examination.run, check)
            except Exception as error:
                examination.fail(check, error)
            else:
                examination.add(found)
        return examination.result()

    async def list_attempts(self, job_or_id: Target, session: AsyncCaller | None = None) -> list[Attempt]:
        return await self._database.read_in(session, attempts.list_attempts, parse([job_or_id]))


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

    def health(
        self, thresholds: Thresholds | None = None, *, skip: Collection[str] = (), timeout: float = 10.0
    ) -> Health:
        examination = Examination(self.options, thresholds, skip, timeout, self._database.missing_file())
        for check in examination.checks():
            try:
                found = self._database.read_in(None, examination.run, check)
            except Exception as error:
                examination.fail(check, error)
            else:
                examination.add(found)
        return examination.result()

    def list_attempts(self, job_or_id: Target, session: SyncCaller | None = None) -> list[Attempt]:
        return self._database.read_in(session, attempts.list_attempts, parse([job_or_id]))
