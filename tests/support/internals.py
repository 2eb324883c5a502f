"""Private parts of the library that tests need. Nothing else in the tests touches them."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import ClauseElement, QueuePool

from oban import Oban, SyncOban, clock
from oban.cli.supervisor import Supervisor
from oban.database.aio import Database
from oban.database.fast import compiled
from oban.database.fast.autocommit_pool import AutocommitConnection
from oban.database.transaction import OwnTransaction
from oban.notifier.listen import ListenNotifier
from oban.notifier.poll import DataVersionNotifier
from oban.repository import stage
from oban.repository.acknowledge import Ack
from oban.repository.cluster import Heartbeat
from oban.runner import Runner
from oban.runner.execution.acknowledger import Acknowledger
from oban.runner.execution.producer import Producer
from oban.runner.heartbeat_thread import HeartbeatThread
from oban.runner.loop_watchdog import LoopWatchdog
from oban.runner.processes import child
from oban.runner.services.base import Service
from oban.runner.services.leader import Leader
from oban.runner.services.lifeline import Lifeline
from oban.runner.services.pruner import Pruner
from oban.runner.services.refresher import Refresher
from oban.runner.services.scheduler import Scheduler


def database_of(oban: Oban) -> Database:
    """The database as the client reaches it, whose `write` and `read` run functions of `oban.repository`."""
    return oban._database


def is_running(oban: Oban) -> bool:
    """Whether an instance with queues has started and not stopped yet."""
    return oban._node._runner is not None


def runner_of(oban: Oban) -> Runner:
    """The runner of a started instance with queues. Its `database` has its own pool."""
    assert oban._node._runner is not None
    return oban._node._runner


def session_pool_of(oban: Oban) -> QueuePool:
    """The pool of the sessions of async jobs of a started instance."""
    pool = runner_of(oban)._session_pool.database.engine.pool
    assert isinstance(pool, QueuePool)
    return pool


def producer_of(oban: Oban, queue: str = "default") -> Producer:
    """The producer of a queue of a started instance."""
    return runner_of(oban).producers[queue]


def services_of(oban: Oban) -> list[Service]:
    """The services that a started instance runs on its event loop."""
    return runner_of(oban)._services()


def refresher_of(oban: Oban) -> Refresher:
    """The service that sends the heartbeats of a started instance, in a thread."""
    return runner_of(oban).heartbeat_thread._refresher


async def start_refresher(heartbeats: HeartbeatThread) -> None:
    """Start the refresher of a heartbeat thread, on the thread's event loop."""
    await heartbeats._on_thread(heartbeats._refresher.start())


async def stop_refresher(heartbeats: HeartbeatThread) -> None:
    """Stop the refresher of a heartbeat thread, on the thread's event loop."""
    await heartbeats._on_thread(heartbeats._refresher.stop())


def heartbeats_of(heartbeats: HeartbeatThread) -> Sequence[Heartbeat]:
    """The heartbeats that a thread would send now."""
    return heartbeats._refresher._heartbeats()


def ended_producers(refresher: Refresher) -> set[UUID]:
    """The producers for which a refresher sends no heartbeat any more, as they have ended."""
    return refresher._ended


def producers_seen(lifeline: Lifeline) -> Collection[UUID]:
    """The producers of which the lifeline of a leader remembers a heartbeat."""
    return lifeline._last_seen


def forget_lead(leader: Leader) -> None:
    """Let a leader believe that its lease has ended."""
    leader._leads_until = 0.0


def next_tick_of(oban: Oban) -> datetime | None:
    """When the leader's next periodic entry is due, as a started instance knows it."""
    return runner_of(oban).scheduler._timetable.next_tick()


def believe_time(patch: pytest.MonkeyPatch, scheduler: Scheduler, time: datetime) -> None:
    """Let a scheduler take a time for the database's."""
    patch.setattr(scheduler, "_now", lambda: time)


def hears(notifier: ListenNotifier) -> bool:
    """Whether a notifier has received a notification on its connection."""
    return notifier._health._received.is_set()


def replace_listen(patch: pytest.MonkeyPatch, function: Any) -> Any:
    """Replace the method with which a notifier listens on a connection; returns the original."""
    original = ListenNotifier._listen
    patch.setattr(ListenNotifier, "_listen", function)
    return original


def replace_poll(patch: pytest.MonkeyPatch, notifier: DataVersionNotifier, function: Any) -> None:
    """Replace the method with which a notifier polls one connection."""
    patch.setattr(notifier, "_poll", function)


def replace_finish(patch: pytest.MonkeyPatch, oban: Oban, function: Callable[[OwnTransaction], Any]) -> None:
    """Replace what a client does with a transaction once it is committed."""
    patch.setattr(oban._database, "_finish", function)


def refused_by(acknowledger: Acknowledger) -> list[Ack]:
    """The acknowledgements that the database refused, which are tried again later."""
    return [refused.ack for refused in acknowledger._refused]


def retry_refused_now(pruner: Pruner) -> None:
    """Let a pruner try the jobs that it could not delete again, with its next tick."""
    pruner._retry_refused_at = clock.monotonic()


def walk_keys_now(pruner: Pruner) -> None:
    """Let the next tick begin a walk through all keys of unique jobs."""
    pruner._walk_at = clock.monotonic()


def walk_attempts_now(pruner: Pruner) -> None:
    """Let the next tick begin a walk through all attempts."""
    pruner._attempts_walk_at = clock.monotonic()


def look_for_strays(producer: Producer) -> None:
    """Let a producer look for jobs that it has claimed without knowing of them."""
    producer._may_have_strays = True
    producer.wake()


def thread_of(watchdog: LoopWatchdog) -> threading.Thread:
    """The thread of a watchdog that has started."""
    assert watchdog._thread is not None
    return watchdog._thread


@contextmanager
def unanswered(watchdog: LoopWatchdog) -> Iterator[None]:
    """Discard the event loop's answers to the watchdog, as if the machine did not let the loop run."""
    answer = watchdog._answer
    watchdog._answer = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        watchdog._answer = answer  # type: ignore[method-assign]
        answer()


def pretend_to_prepare(patch: pytest.MonkeyPatch) -> None:
    """Let this process look like a child that imports the main module of its parent."""
    patch.setattr(child, "_preparing", True)


def stage_statement(oban: Oban) -> ClauseElement:
    """The statement with which the stager makes due jobs available."""
    return stage.stage_statement(oban._database.dialect)


def idle_connections(oban: Oban | SyncOban) -> list[AutocommitConnection]:
    """The autocommit connections that wait for the next statement."""
    return [idle for each in oban._database._autocommit_pool._idle.values() for idle in each]


def close_idle_connection(oban: Oban | SyncOban) -> None:
    """Close the driver's connection of the only autocommit connection that waits for a statement."""
    (idle,) = idle_connections(oban)
    assert idle._dbapi_connection is not None
    idle._dbapi_connection.close()


def hold_writer(oban: SyncOban) -> AbstractContextManager[Any]:
    """The lock that lets the writers of a process take turns."""
    return oban._database._writer


def loop_of(oban: Oban) -> Any:
    """The event loop that the calls of a client have to be on, if there is one."""
    return oban._database.loop


def socket_of(asyncpg_connection: Any) -> Any:
    """The socket of a connection of asyncpg."""
    return asyncpg_connection._transport.get_extra_info("socket")


def break_compiled_statements(patch: pytest.MonkeyPatch) -> None:
    """Let SQLAlchemy look like a release without the private names that compiled statements need."""

    def fails(*_: object) -> None:
        raise AttributeError("_bind_processors")

    patch.setattr(compiled.CompiledStatement, "_capture", fails)


def record_compiled_statements(patch: pytest.MonkeyPatch) -> list[str]:
    """The SQL of each compiled statement that is run again, past SQLAlchemy, from now on."""
    rows, recorded = compiled.CompiledStatement.rows, list[str]()

    def record(statement: compiled.CompiledStatement, *args: Any) -> Any:
        recorded.append(statement._sql)
        return rows(statement, *args)

    patch.setattr(compiled.CompiledStatement, "rows", record)
    return recorded


def all_ready(supervisor: Supervisor) -> bool:
    """Whether every node of a supervisor has started."""
    return all(node.ready.is_set() for node in supervisor._nodes)


def looks_soon(leader: Leader) -> bool:
    """Whether a signal has made a node look at the lease of its leader soon."""
    return leader._next_look is not None


def run_sync(oban: SyncOban, function: Callable[..., Any], *args: Any) -> Any:
    """Run a function of `oban.repository` in a transaction of the client."""
    return oban._database.run(None, function, *args)
