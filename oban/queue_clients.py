"""The operations on queues of `Oban` and of `SyncOban`."""

from typing import Any

from sqlalchemy import Select

from oban import fields
from oban.config import Options
from oban.database.aio import Database
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.sync import SyncDatabase
from oban.queue_operations import QueueOperations
from oban.repository import cluster, counts, queue_settings
from oban.repository.cluster import QueueInfo
from oban.repository.counts import JobCounts
from oban.repository.queue_settings import ALL, QueueCommand, QueueSettings
from oban.repository.selection import check_statement
from oban.runner import Node
from oban.telemetry import QueueChanged, Telemetry


class AsyncQueues(QueueOperations[AsyncCaller]):
    """The operations of `Oban`."""

    options: Options
    #: The handlers of this client's events: `oban.telemetry.attach(…)`.
    telemetry: Telemetry
    _database: Database
    _node: Node

    async def pause_queue(
        self, queue: str, node: str | None = None, session: AsyncCaller | None = None
    ) -> None:
        await self._send(session, "pause", fields.queue(queue), node)

    async def resume_queue(
        self, queue: str, node: str | None = None, session: AsyncCaller | None = None
    ) -> None:
        await self._send(session, "resume", fields.queue(queue), node)

    async def pause_all_queues(self, node: str | None = None, session: AsyncCaller | None = None) -> None:
        await self._send(session, "pause", ALL, node)

    async def resume_all_queues(self, node: str | None = None, session: AsyncCaller | None = None) -> None:
        await self._send(session, "resume", ALL, node)

    async def start_queue(
        self,
        queue: str,
        limit: int = 10,
        paused: bool = False,
        node: str | None = None,
        session: AsyncCaller | None = None,
    ) -> None:
        await self._send(session, "start", queue, node, limit=limit, paused=paused)

    async def stop_queue(
        self, queue: str, node: str | None = None, session: AsyncCaller | None = None
    ) -> None:
        await self._send(session, "stop", queue, node)

    async def scale_queue(
        self, queue: str, limit: int | None, node: str | None = None, session: AsyncCaller | None = None
    ) -> None:
        await self._send(session, "scale", queue, node, limit=limit)

    def check_all_queues(self) -> list[QueueInfo]:
        return runner.queues.check() if (runner := self._node.runner) is not None else []

    async def check_cluster(
        self, queue: str | None = None, session: AsyncCaller | None = None
    ) -> list[QueueInfo]:
        queue = fields.queue_or_none(queue)
        return await self._database.read_in(session, cluster.check_cluster, self.options.name, queue)

    async def list_queue_settings(
        self, queue: str | None = None, session: AsyncCaller | None = None
    ) -> list[QueueSettings]:
        queue = fields.queue_or_none(queue)
        return await self._database.read_in(session, queue_settings.list_settings, self.options.name, queue)

    async def count_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: AsyncCaller | None = None,
        *,
        queue: str | None = None,
    ) -> JobCounts:
        queue = fields.queue_or_none(queue)
        if select_statement is not None:
            check_statement(select_statement)
        return await self._database.read_in(session, counts.count_jobs, select_statement, queue)

    async def _send(
        self, session: AsyncCaller | None, action: str, queue: str, node: str | None, **settings: Any
    ) -> None:
        command = QueueCommand.make(action, queue, node, **settings)
        await self._database.run(session, queue_settings.store_command, self.options.name, command)
        _emit_change(self.telemetry, command, in_transaction=session is not None)
        if session is None and (runner := self._node.runner) is not None:
            await runner.controller.tick()


class SyncQueues(QueueOperations[SyncCaller]):
    """The operations of `SyncOban`."""

    options: Options
    #: The handlers of this client's events: `oban.telemetry.attach(…)`.
    telemetry: Telemetry
    _database: SyncDatabase

    def pause_queue(self, queue: str, node: str | None = None, session: SyncCaller | None = None) -> None:
        self._send(session, "pause", fields.queue(queue), node)

    def resume_queue(self, queue: str, node: str | None = None, session: SyncCaller | None = None) -> None:
        self._send(session, "resume", fields.queue(queue), node)

    def pause_all_queues(self, node: str | None = None, session: SyncCaller | None = None) -> None:
        self._send(session, "pause", ALL, node)

    def resume_all_queues(self, node: str | None = None, session: SyncCaller | None = None) -> None:
        self._send(session, "resume", ALL, node)

    def start_queue(
        self,
        queue: str,
        limit: int = 10,
        paused: bool = False,
        node: str | None = None,
        session: SyncCaller | None = None,
    ) -> None:
        self._send(session, "start", queue, node, limit=limit, paused=paused)

    def stop_queue(self, queue: str, node: str | None = None, session: SyncCaller | None = None) -> None:
        self._send(session, "stop", queue, node)

    def scale_queue(
        self, queue: str, limit: int | None, node: str | None = None, session: SyncCaller | None = None
    ) -> None:
        self._send(session, "scale", queue, node, limit=limit)

    def check_cluster(self, queue: str | None = None, session: SyncCaller | None = None) -> list[QueueInfo]:
        queue = fields.queue_or_none(queue)
        return self._database.read_in(session, cluster.check_cluster, self.options.name, queue)

    def list_queue_settings(
        self, queue: str | None = None, session: SyncCaller | None = None
    ) -> list[QueueSettings]:
        queue = fields.queue_or_none(queue)
        return self._database.read_in(session, queue_settings.list_settings, self.options.name, queue)

    def count_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: SyncCaller | None = None,
        *,
        queue: str | None = None,
    ) -> JobCounts:
        queue = fields.queue_or_none(queue)
        if select_statement is not None:
            check_statement(select_statement)
        return self._database.read_in(session, counts.count_jobs, select_statement, queue)

    def _send(
        self, session: SyncCaller | None, action: str, queue: str, node: str | None, **settings: Any
    ) -> None:
        command = QueueCommand.make(action, queue, node, **settings)
        self._database.run(session, queue_settings.store_command, self.options.name, command)
        _emit_change(self.telemetry, command, in_transaction=session is not None)


def _emit_change(telemetry: Telemetry, command: QueueCommand, *, in_transaction: bool) -> None:
    telemetry.emit(
        QueueChanged,
        action=command.action,
        queue=command.queue,
        target=command.node,
        # 0 restores the configured limit.
        limit=command.settings.get("limit") or None,
        paused=command.settings.get("paused"),
        in_transaction=in_transaction,
    )
