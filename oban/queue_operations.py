"""The operations on queues that `Oban` and `SyncOban` implement, with the documentation for both."""

from abc import ABC, abstractmethod
from typing import Any, Generic

from sqlalchemy import Select

from oban.enqueue_operations import CallerT, MaybeAwaitable
from oban.polling import Timeout
from oban.repository.cluster import QueueInfo
from oban.repository.counts import JobCounts
from oban.repository.queue_settings import QueueSettings


class QueueOperations(ABC, Generic[CallerT]):
    """Control and check the queues of all nodes of this instance.

    A command goes to all nodes, or to the one that `node` names. It is stored, so it survives restarts and
    reaches nodes that are offline when they start; for each node the most recent command wins, whether it
    was about one queue or all of them. It is in effect on the client's own node when the call returns, and
    on other nodes when they are notified, or within `control_interval` (1 second). With `session`, a session
    or connection of the caller, it takes effect when the caller's transaction commits. Nodes that are
    configured without queues ignore commands.
    """

    @abstractmethod
    def pause_queue(
        self, queue: str, node: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[None]:
        """Let a queue fetch no more jobs until it is resumed. Executing jobs continue.

        Args:
            queue: The name of the queue.
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            InvalidJob: `queue` is not a queue name.
            ConfigError: `node` is not a node name.

        Example:
            `await oban.pause_queue("media", node="worker-1")`
        """

    @abstractmethod
    def resume_queue(
        self, queue: str, node: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[None]:
        """Let a queue fetch jobs again, also after `pause_all_queues`.

        Args:
            queue: The name of the queue.
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            InvalidJob: `queue` is not a queue name.
            ConfigError: `node` is not a node name.

        Example:
            `await oban.resume_queue("media")`
        """

    @abstractmethod
    def pause_all_queues(
        self, node: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[None]:
        """Pause every queue, and those that are started later, until they or all queues are resumed.

        Args:
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            ConfigError: `node` is not a node name.

        Example:
            `await oban.pause_all_queues()`
        """

    @abstractmethod
    def resume_all_queues(
        self, node: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[None]:
        """Resume every queue, also those that were paused one by one.

        Args:
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            ConfigError: `node` is not a node name.

        Example:
            `await oban.resume_all_queues()`
        """

    @abstractmethod
    def start_queue(
        self,
        queue: str,
        limit: int = 10,
        paused: bool = False,
        node: str | None = None,
        session: CallerT | None = None,
    ) -> MaybeAwaitable[None]:
        """Run a queue, whether or not it is configured.

        Args:
            queue: The name of the queue.
            limit: How many of its jobs each node runs at once, 1 to 10,000 (default 10).
            paused: Whether the queue waits for `resume_queue` before it fetches jobs (default False).
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            InvalidJob: `queue` is not a queue name.
            ConfigError: `limit`, `paused` or `node` is not such a value.

        Example:
            `await oban.start_queue("reports", limit=5)`
        """

    @abstractmethod
    def stop_queue(
        self, queue: str, node: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[None]:
        """Stop running a queue until it is started again.

        Executing jobs finish in the background, without a time limit.

        Args:
            queue: The name of the queue.
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            InvalidJob: `queue` is not a queue name.
            ConfigError: `node` is not a node name.

        Example:
            `await oban.stop_queue("reports")`
        """

    @abstractmethod
    def scale_queue(
        self, queue: str, limit: int | None, node: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[None]:
        """Change how many jobs of a queue each node runs at once.

        After the limit is lowered, executing jobs finish first.

        Args:
            queue: The name of the queue.
            limit: 1 to 10,000, or None for the limit that each node is configured with.
            node: The name of a node (default: all nodes).
            session: The caller's session or connection; the command takes effect when it commits.

        Raises:
            InvalidJob: `queue` is not a queue name.
            ConfigError: `limit` or `node` is not such a value.

        Example:
            `await oban.scale_queue("media", 20)`
        """

    def check_all_queues(self) -> list[QueueInfo]:
        """Return the current state of each queue of this node, without asking the database.

        Empty if no queue runs here, which is always so for `SyncOban`; see `check_cluster`.

        Returns:
            A `QueueInfo` for each queue.
        """
        return []

    def check_queue(self, queue: str) -> QueueInfo | None:
        """Return the current state of a queue of this node; None if it does not run here.

        Args:
            queue: The name of the queue.

        Returns:
            A `QueueInfo`, or None.
        """
        return next((info for info in self.check_all_queues() if info.queue == queue), None)

    @abstractmethod
    def check_cluster(
        self, queue: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[list[QueueInfo]]:
        """Read the state of each queue on each node, as of its last heartbeat, by queue, node and start.

        Args:
            queue: The name of a queue (default: all queues).
            session: The caller's session or connection, to read in its transaction.

        Returns:
            A `QueueInfo` for each queue of each node.

        Raises:
            InvalidJob: `queue` is not a queue name.

        Example:
            `await oban.check_cluster("media")`
        """

    @abstractmethod
    def list_queue_settings(
        self, queue: str | None = None, session: CallerT | None = None
    ) -> MaybeAwaitable[list[QueueSettings]]:
        """Read what commands have set and stored, by queue and node, whether or not a node runs.

        Entries exist where something is set: for a queue or for all queues, on a node or on all nodes. For a
        node, its own entry for a queue takes precedence over that of all nodes, and both over those for all
        queues.

        Args:
            queue: The name of a queue, to read its own entries alone (default: all entries).
            session: The caller's session or connection, to read in its transaction.

        Returns:
            A `QueueSettings` for each entry.

        Raises:
            InvalidJob: `queue` is not a queue name.

        Example:
            `await oban.list_queue_settings()`
        """

    @abstractmethod
    def count_jobs(
        self,
        select_statement: Select[Any] | None = None,
        session: CallerT | None = None,
        *,
        queue: str | None = None,
    ) -> MaybeAwaitable[JobCounts]:
        """Count jobs by queue and state, with one statement.

        Args:
            select_statement: Such as `select(Job).where(Job.worker == "app.Resize")` (default: all jobs).
            session: The caller's session or connection, to count in its transaction.
            queue: The name of a queue, to count only its jobs (default: all queues).

        Returns:
            By the name of each queue that has jobs, or of `queue`, a dict with a number for each `JobState`:
            `(await oban.count_jobs())["default"]["available"]`.

        Raises:
            InvalidTarget: The statement is not a `select(Job)`.
            InvalidJob: `queue` is not a queue name.

        Example:
            `await oban.count_jobs(select(Job).where(filters.tags("vip")))`
        """

    @abstractmethod
    def wait_until_empty(self, queue: str | None = None, timeout: Timeout = None) -> MaybeAwaitable[None]:
        """Wait until a queue, or every queue, has nothing to do: no job is executing, available or due.

        `scheduled` and `retryable` jobs count from the moment that they are due. Jobs that are due later do
        not count, and neither do `suspended` jobs. The database is asked as often as by `wait`.

        Args:
            queue: The name of the queue (default: all queues).
            timeout: Seconds, or a timedelta, to wait at most; 0 to look once (default: no limit).

        Raises:
            TimeoutError: There are still such jobs when the time is over, for example because the queue is
                paused, or the call is made by a job of that queue.
            InvalidJob: `queue` is not the name of a queue.
            InvalidArgument: `timeout` is negative, not finite, or not a number.

        Example:
            `await oban.wait_until_empty("media", timeout=30)`
        """
