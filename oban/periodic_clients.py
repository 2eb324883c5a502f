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
from oban.worker_entries import check_args


class AsyncPeriodic(PeriodicOperations[AsyncCaller]):
    """The operations of `Oban`."""

    options: Options
    _database: Database

    async def list_periodic(self, session: AsyncCaller | None = None) -> list[PeriodicInfo]:
        name, lease = self.options.name, self.options.lease
        return await self._database.read_in(session, periodic_changes.list_infos, name, lease)

    async def pause_periodic(self, name: str, session: AsyncCaller | None = None) -> None:
        entry = find_name(name)
        await self._database.run(session, periodic_changes.pause, self.options.name, entry)

    async def resume_periodic(self, name: str, session: AsyncCaller | None = None) -> None:
        entry = find_name(name)
        await self._database.run(session, periodic_changes.resume, self.options.name, entry)

    async def run_periodic(self, name: str, session: AsyncCaller | None = None) -> Job:
        return await self._database.run(
            session,
            periodic_changes.run_now,
            self.options.name,
            find_name(name),
            attach=session is not None,
            max_attempts=self.options.max_attempts,
        )

    async def update_periodic(
        self, name: str, session: AsyncCaller | None = None, **changes: Unpack[PeriodicChanges]
    ) -> PeriodicInfo:
        return await self._database.run(
            session,
            periodic_changes.override,
            self.options.name,
            find_name(name),
            check_changes(changes),
            check_args,
            self.options.lease,
        )

    async def reset_periodic(self, name: str, session: AsyncCaller | None = None) -> PeriodicInfo:
        entry, lease = find_name(name), self.options.lease
        return await self._database.run(session, periodic_changes.reset, self.options.name, entry, lease)

    async def add_periodic(self, entry: Periodic, session: AsyncCaller | None = None) -> PeriodicInfo:
        new, lease = Periodic.parse(entry), self.options.lease
        return await self._database.run(session, periodic_changes.add, self.options.name, new, lease)

    async def delete_periodic(self, name: str, session: AsyncCaller | None = None) -> None:
        entry, lease = find_name(name), self.options.lease
        await self._database.run(session, periodic_changes.remove, self.options.name, entry, lease)


class SyncPeriodic(PeriodicOperations[SyncCaller]):
    """The operations of `SyncOban`."""

    options: Options
    _database: SyncDatabase

    def list_periodic(self, session: SyncCaller | None = None) -> list[PeriodicInfo]:
        name, lease = self.options.name, self.options.lease
        return self._database.read_in(session, periodic_changes.list_infos, name, lease)

    def pause_periodic(self, name: str, session: SyncCaller | None = None) -> None:
        entry = find_name(name)
        self._database.run(session, periodic_changes.pause, self.options.name, entry)

    def resume_periodic(self, name: str, session: SyncCaller | None = None) -> None:
        entry = find_name(name)
        self._database.run(session, periodic_changes.resume, self.options.name, entry)

    def run_periodic(self, name: str, session: SyncCaller | None = None) -> Job:
        return self._database.run(
            session,
            periodic_changes.run_now,
            self.options.name,
            find_name(name),
            attach=session is not None,
            max_attempts=self.options.max_attempts,
        )

    def update_periodic(
        self, name: str, session: SyncCaller | None = None, **changes: Unpack[PeriodicChanges]
    ) -> PeriodicInfo:
        return self._database.run(
            session,
            periodic_changes.override,
            self.options.name,
            find_name(name),
            check_changes(changes),
            check_args,
            self.options.lease,
        )

    def reset_periodic(self, name: str, session: SyncCaller | None = None) -> PeriodicInfo:
        entry, lease = find_name(name), self.options.lease
        return self._database.run(session, periodic_changes.reset, self.options.name, entry, lease)

    def add_periodic(self, entry: Periodic, session: SyncCaller | None = None) -> PeriodicInfo:
        new, lease = Periodic.parse(entry), self.options.lease
        return self._database.run(session, periodic_changes.add, self.options.name, new, lease)

    def delete_periodic(self, name: str, session: SyncCaller | None = None) -> None:
        entry, lease = find_name(name), self.options.lease
        self._database.run(session, periodic_changes.remove, self.options.name, entry, lease)
