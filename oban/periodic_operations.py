"""The operations on periodic jobs that `Oban` and `SyncOban` implement, with the documentation for both."""

from abc import ABC, abstractmethod
from typing import Generic, Unpack

from oban.enqueue_operations import CallerT, MaybeAwaitable
from oban.models import Job
from oban.periodic import Periodic, PeriodicChanges, PeriodicInfo


class PeriodicOperations(ABC, Generic[CallerT]):
    """List and change the periodic entries of this instance, whose jobs its leader inserts.

    Entries come from the code: from workers with `cron=` and from `Oban(periodic=[…])`. Each node with queues
    stores those of its code when it starts, and from then on they can be changed from every process. Changes
    are stored apart from the code's declaration, so they survive restarts and deploys. They take effect
    within a second when they are committed; with `session`, that is when the caller's transaction commits.
    """

    @abstractmethod
    def list_periodic(self, session: CallerT | None = None) -> MaybeAwaitable[list[PeriodicInfo]]:
        """Read all periodic entries of this instance, by name, with their last and next times.

        Args:
            session: The caller's session or connection, to read in its transaction.

        Returns:
            A `PeriodicInfo` for each entry.

        Example:
            `await oban.list_periodic()`
        """

    @abstractmethod
    def pause_periodic(self, name: str, session: CallerT | None = None) -> MaybeAwaitable[None]:
        """Let a periodic entry insert no jobs until it is resumed. Jobs that it has inserted still run.

        Args:
            name: The name of the entry.
            session: The caller's session or connection; the change takes effect when it commits.

        Raises:
            PeriodicNotFound: There is no such entry.

        Example:
            `await oban.pause_periodic("nightly")`
        """

    @abstractmethod
    def resume_periodic(self, name: str, session: CallerT | None = None) -> MaybeAwaitable[None]:
        """Let a paused entry insert jobs again, from its next time on. It makes up for no time it was paused.

        Args:
            name: The name of the entry.
            session: The caller's session or connection; the change takes effect when it commits.

        Raises:
            PeriodicNotFound: There is no such entry.

        Example:
            `await oban.resume_periodic("nightly")`
        """

    @abstractmethod
    def run_periodic(self, name: str, session: CallerT | None = None) -> MaybeAwaitable[Job]:
        """Insert a job of an entry now, also if it is paused. Its next time inserts another one as usual.

        The job's `meta` tells the entry, but no `cron_tick`, because the job is for none of its times.

        If the job is unique and there is one already, that one is returned, with `conflict` true.

        Args:
            name: The name of the entry.
            session: The caller's session or connection, to insert the job in its transaction.

        Returns:
            The job.

        Raises:
            PeriodicNotFound: There is no such entry.

        Example:
            `await oban.run_periodic("nightly")`
        """

    @abstractmethod
    def update_periodic(
        self, name: str, session: CallerT | None = None, **changes: Unpack[PeriodicChanges]
    ) -> MaybeAwaitable[PeriodicInfo]:
        """Change an entry until `reset_periodic`, whatever the code declares meanwhile.

        A new expression or time zone applies from now on: it makes up for no time that has passed.

        Args:
            name: The name of the entry.
            session: The caller's session or connection; the change takes effect when it commits.
            changes: `expression`, `timezone`, `catch_up` and `window`, as for `Periodic`, and fields of the
                jobs: `args`, `queue`, `priority`, `max_attempts`, `tags` and `meta`. None means not to
                change a value. What earlier calls have changed stays changed.

        Returns:
            The entry with the changes.

        Raises:
            PeriodicNotFound: There is no such entry.
            ConfigError: A value cannot be changed, or the expression, time zone or an option is wrong.
            InvalidJob: A field of the jobs has a wrong value, or the args do not fit the worker.

        Example:
            `await oban.update_periodic("nightly", expression="30 4 * * *", priority=2)`
        """

    @abstractmethod
    def reset_periodic(self, name: str, session: CallerT | None = None) -> MaybeAwaitable[PeriodicInfo]:
        """Take back all changes of `update_periodic`. An entry that is paused stays so.

        Args:
            name: The name of the entry.
            session: The caller's session or connection; the change takes effect when it commits.

        Returns:
            The entry as it is declared.

        Raises:
            PeriodicNotFound: There is no such entry.

        Example:
            `await oban.reset_periodic("nightly")`
        """

    @abstractmethod
    def add_periodic(self, entry: Periodic, session: CallerT | None = None) -> MaybeAwaitable[PeriodicInfo]:
        """Add an entry at run time, which survives restarts and needs no node that declares it.

        An entry of this name that was added before is replaced: it goes on from its last time, stays paused,
        and keeps the changes of `update_periodic`. Code that declares an entry of this name later does not
        replace it; the nodes log a warning.

        Args:
            entry: Such as `Periodic("customer 7", "0 6 * * mon", Report.new({"customer": 7}))`.
            session: The caller's session or connection; the entry is added when it commits.

        Returns:
            The entry.

        Raises:
            PeriodicInCode: The code of a running node declares an entry of this name.
            ConfigError: `entry` is not a `Periodic`.

        Example:
            `await oban.add_periodic(Periodic("customer 7", "0 6 * * mon", Report.new({"customer": 7})))`
        """

    @abstractmethod
    def delete_periodic(self, name: str, session: CallerT | None = None) -> MaybeAwaitable[None]:
        """Delete an entry of `add_periodic`. Jobs that it has inserted stay.

        Args:
            name: The name of the entry.
            session: The caller's session or connection; the change takes effect when it commits.

        Raises:
            PeriodicNotFound: There is no such entry.
            PeriodicInCode: The code of a running node declares it: remove it there, or pause it.

        Example:
            `await oban.delete_periodic("customer 7")`
        """
