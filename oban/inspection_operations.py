"""The questions about an instance that `Oban` and `SyncOban` answer, with the documentation for both."""

from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Generic

from oban.diagnosis.explanation import Explanation
from oban.diagnosis.health_findings import Health, Thresholds
from oban.enqueue_operations import CallerT, MaybeAwaitable
from oban.models import Attempt
from oban.repository.nodes import NodeInfo
from oban.repository.selection import Target
from oban.repository.stats import Stats
from oban.runner.node_check import NodeCheck, not_ready


class InspectionOperations(ABC, Generic[CallerT]):
    """Ask what the jobs, queues and nodes of this instance do, and why. These calls change nothing."""

    @abstractmethod
    def why(self, job_or_id: Target, session: CallerT | None = None) -> MaybeAwaitable[Explanation]:
        """Explain why a job does not run: all reasons, the decisive one first, and what to do about each.

        It can be asked about any job: one that runs, one that has ended and one that does not exist, too.
        It reads what the nodes have told the database, in one statement that takes a few milliseconds however
        many jobs there are. A node tells what it does when that changes, and every `heartbeat_interval`.

        Args:
            job_or_id: A job or its id.
            session: The caller's session or connection, to read in its transaction.

        Returns:
            An `Explanation` with the `state` of the job, whether it `runs`, and its `reasons`, each with a
            `code`, a `text`, `advice` and `commands`. `print` shows it as text.

        Raises:
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.

        Example:
            `print(await oban.why(job))`
        """

    @abstractmethod
    def stats(
        self, session: CallerT | None = None, *, count_limit: int | None = None
    ) -> MaybeAwaitable[Stats]:
        """Read what the queues and nodes of this instance do: numbers of jobs, waiting times, throughput.

        Counting reads an index with one entry per job, which takes about 0.1 seconds for a million jobs; the
        rest reads a few rows of each queue. To ask often, or if there are many more jobs, pass
        `count_limit`.

        Args:
            session: The caller's session or connection, to read in its transaction.
            count_limit: Count up to this many jobs of each queue and state, at least 1 (default: all).

        Returns:
            A `Stats`.

        Raises:
            InvalidArgument: `count_limit` is not a positive integer.

        Example:
            `await oban.stats(count_limit=1000)`
        """

    @abstractmethod
    def list_nodes(self, session: CallerT | None = None) -> MaybeAwaitable[list[NodeInfo]]:
        """Read the nodes of this instance that run queues, as of their last heartbeats.

        They are in the order of their names and process ids. Nodes that died are among them until their
        jobs have been rescued.

        Args:
            session: The caller's session or connection, to read in its transaction.

        Returns:
            A `NodeInfo` for each process. The list is empty if none runs.

        Example:
            `[node.node for node in await oban.list_nodes() if not node.alive]`
        """

    @abstractmethod
    def health(
        self, thresholds: Thresholds | None = None, *, skip: Collection[str] = (), timeout: float = 10.0
    ) -> MaybeAwaitable[Health]:
        """Check the database, the tables, the nodes and the queues of this instance, as `oban check` does.

        The checks read a few rows and the statistics of the database, also with millions of jobs, and take
        no locks that others wait for. A check that takes too long, or that this role may not make, is
        "unknown". If the database cannot be reached, that is the only finding.

        Args:
            thresholds: From which figures on something is a problem (default: `Thresholds()`).
            skip: Codes of checks to leave out, such as "bloat" (default: none).
            timeout: Seconds for all checks (default 10). A server that does not answer keeps a `SyncOban`
                waiting for as long as its driver does.

        Returns:
            A `Health`, whose `severity` is "ok", "warning", "critical" or "unknown".

        Raises:
            InvalidArgument: There is no check with a code of `skip`, or an argument is of another type.

        Example:
            `await oban.health(Thresholds(oldest_job_warning=60), skip=["bloat"])`
        """

    def check_node(self) -> NodeCheck:
        """Check whether the node of this process is live and ready, without asking the database.

        For health endpoints of applications that run a node; `oban start` has its own with `--health-port`.
        It can be called from any thread, also while the event loop is blocked, and costs a few microseconds.

        Returns:
            A `NodeCheck`. A client that runs no queues, such as a `SyncOban`, is live and never ready.

        Example:
            `oban.check_node().is_ready`
        """
        return not_ready("this client has no queues to run")

    @abstractmethod
    def list_attempts(
        self, job_or_id: Target, session: CallerT | None = None
    ) -> MaybeAwaitable[list[Attempt]]:
        """Read the history of a job: the attempts that have ended, the first one first.

        An attempt that was snoozed or released does not count, so that several ones can have the same
        number. An attempt under way has no row yet.

        Args:
            job_or_id: A job or its id.
            session: The caller's session or connection, to read in its transaction.

        Returns:
            Instances that belong to no session. The list is empty for a job without history: no attempt has
            ended yet, the attempts ended with `history=False` or on a node of another implementation, or
            there is no such job.

        Raises:
            InvalidTarget: `job_or_id` is neither a `Job` nor an integer.
            NotEnqueued: The `Job` was never enqueued.

        Example:
            `[(attempt.outcome, attempt.error) for attempt in await oban.list_attempts(job)]`
        """
