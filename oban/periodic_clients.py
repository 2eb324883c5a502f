"""The operations on periodic jobs of `Oban` and of `SyncOban`."""

from typing import Unpack

from oban.config import Options
from oban.database.aio import Database
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.sync import SyncDatabase
from oban.models import Job
from oban.periodic import Periodic, PeriodicChanges, PeriodicInfo, check_changes, find_name
from oban.periodic_operations import PeriodicOperations
from oban.repository import periodic_changes
from oban.telemetry import PeriodicChanged, PeriodicInserted, Telemetry
from oban.worker_entries import check_args


class AsyncPeriodic(PeriodicOperations[AsyncCaller]):
    """The operations of `Oban`."""

    options: Options
    telemetry: Telemetry
    _database: Database

    async def list_periodic(self, session: AsyncCaller | None = None) -> list[PeriodicInfo]:
        name, lease = self.options.name, self.options.lease
        return await self._database.read_in(session, periodic_changes.list_infos, name, lease)

    async def pause_periodic(self, name: str, session: AsyncCaller | None = None) -> None:
        entry = find_name(name)
        await self._database.run(session, periodic_changes.pause, self.options.name, entry)
        _emit_change(self.telemetry, "pause", entry, session)

    async def resume_periodic(self, name: str, session: AsyncCaller | None = None) -> None:
        entry = find_name(name)
        await self._database.run(session, periodic_changes.resume, self.options.name, entry)
        _emit_change(self.telemetry, "resume", entry, session)

    async def run_periodic(self, name: str, session: AsyncCaller | None = None) -> Job:
        entry = find_name(name)
        job = await self._database.run(
            session,
            periodic_changes.run_now,
            self.options.name,
            entry,
            attach=session is not None,
            max_attempts=self.options.max_attempts,
        )
        _emit_inserted(self.telemetry, entry, job, session)
        return job

    async def update_periodic(
        self, name: str, session: AsyncCaller | None = None, **changes: Unpack[PeriodicChanges]
    ) -> PeriodicInfo:
        entry = find_name(name)
        info = await self._database.run(
            session,
            periodic_changes.override,
            self.options.name,
            entry,
            check_changes(changes),
            check_args,
            self.options.lease,
        )
        _emit_change(self.telemetry, "update", entry, session)
        return info

    async def reset_periodic(self, name: str, session: AsyncCaller | None = None) -> PeriodicInfo:
        entry, lease = find_name(name), self.options.lease
        info = await self._database.run(session, periodic_changes.reset, self.options.name, entry, lease)
        _emit_change(self.telemetry, "reset", entry, session)
        return info

    async def add_periodic(self, entry: Periodic, session: AsyncCaller | None = None) -> PeriodicInfo:
        new, lease = Periodic.parse(entry), self.options.lease
        info = await self._database.run(session, periodic_changes.add, self.options.name, new, lease)
        _emit_change(self.telemetry, "add", info.name, session)
        return info

    async def delete_periodic(self, name: str, session: AsyncCaller | None = None) -> None:
        entry, lease = find_name(name), self.options.lease
        await self._database.run(session, periodic_changes.remove, self.options.name, entry, lease)
        _emit_change(self.telemetry, "delete", entry, session)


class SyncPeriodic(PeriodicOperations[SyncCaller]):
    """The operations of `SyncOban`."""

    options: Options
    telemetry: Telemetry
    _database: SyncDatabase

    def list_periodic(self, session: SyncCaller | None = None) -> list[PeriodicInfo]:
        name, lease = self.options.name, self.options.lease
        return self._database.read_in(session, periodic_changes.list_infos, name, lease)

    def pause_periodic(self, name: str, session: SyncCaller | None = None) -> None:
        entry = find_name(name)
        self._database.run(session, periodic_changes.pause, self.options.name, entry)
        _emit_change(self.telemetry, "pause", entry, session)

    def resume_periodic(self, name: str, session: SyncCaller | None = None) -> None:
        entry = find_name(name)
        self._database.run(session, periodic_changes.resume, self.options.name, entry)
        _emit_change(self.telemetry, "resume", entry, session)

    def run_periodic(self, name: str, session: SyncCaller | None = None) -> Job:
        entry = find_name(name)
        job = self._database.run(
            session,
            periodic_changes.run_now,
            self.options.name,
            entry,
            attach=session is not None,
            max_attempts=self.options.max_attempts,
        )
        _emit_inserted(self.telemetry, entry, job, session)
        return job

    def update_periodic(
        self, name: str, session: SyncCaller | None = None, **changes: Unpack[PeriodicChanges]
    ) -> PeriodicInfo:
        entry = find_name(name)
        info = self._database.run(
            session,
            periodic_changes.override,
            self.options.name,
            entry,
            check_changes(changes),
            check_args,
            self.options.lease,
        )
        _emit_change(self.telemetry, "update", entry, session)
        return info

    def reset_periodic(self, name: str, session: SyncCaller | None = None) -> PeriodicInfo:
        entry, lease = find_name(name), self.options.lease
        info = self._database.run(session, periodic_changes.reset, self.options.name, entry, lease)
        _emit_change(self.telemetry, "reset", entry, session)
        return info

    def add_periodic(self, entry: Periodic, session: SyncCaller | None = None) -> PeriodicInfo:
        new, lease = Periodic.parse(entry), self.options.lease
        info = self._database.run(session, periodic_changes.add, self.options.name, new, lease)
        _emit_change(self.telemetry, "add", info.name, session)
        return info

    def delete_periodic(self, name: str, session: SyncCaller | None = None) -> None:
        entry, lease = find_name(name), self.options.lease
        self._database.run(session, periodic_changes.remove, self.options.name, entry, lease)
        _emit_change(self.telemetry, "delete", entry, session)


def _emit_change(telemetry: Telemetry, action: str, entry: str, session: object) -> None:
    telemetry.emit(PeriodicChanged, action=action, entry=entry, in_transaction=session is not None)


def _emit_inserted(telemetry: Telemetry, entry: str, job: Job, session: object) -> None:
    if telemetry.wants(PeriodicInserted):
        telemetry.emit(
            PeriodicInserted,
            entry=entry,
            tick=None,
            job_id=job.id,
            worker=job.worker,
            queue=job.queue,
            in_transaction=session is not None,
        )
