"""`all_enqueued`, `assert_enqueued` and `refute_enqueued`: look at the jobs in the database."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator, Sequence
from datetime import timedelta
from typing import Any, TypeAlias, TypeVar, Unpack, overload

from oban import dialects, display, fields, instances
from oban.client import Oban
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.transaction import Transaction
from oban.errors import ConfigError, InvalidJob
from oban.models import Job
from oban.polling import Polling
from oban.sync_client import SyncOban
from oban.testing import clients, explanation
from oban.testing.enqueued_filters import EnqueuedFilters, parse
from oban.testing.explanation import SHOWN, NearestJobs, Place
from oban.testing.matching import Filter, at_database_time, find

T = TypeVar("T")
#: A pause in seconds, or a function that reads something.
Step: TypeAlias = float | Callable[[Transaction], Any]
Steps: TypeAlias = Generator[Step, Any, T]

#: The longest pause between two looks, in seconds. A node may run a job soon after it was enqueued.
_LONGEST_PAUSE = 0.05


@overload
def all_enqueued(
    *, oban: SyncOban, session: SyncCaller | None = None, **filters: Unpack[EnqueuedFilters]
) -> list[Job]: ...
@overload
def all_enqueued(
    *, oban: str = "Oban", session: SyncCaller, **filters: Unpack[EnqueuedFilters]
) -> list[Job]: ...
@overload
def all_enqueued(
    *, oban: Oban | str = "Oban", session: AsyncCaller | None = None, **filters: Unpack[EnqueuedFilters]
) -> Coroutine[Any, Any, list[Job]]: ...
def all_enqueued(
    *,
    oban: Oban | SyncOban | str = "Oban",
    session: AsyncCaller | SyncCaller | None = None,
    **filters: Unpack[EnqueuedFilters],
) -> Any:
    """Find the jobs that are enqueued, the newest first.

    Await it with an `Oban`; with a `SyncOban`, it returns at once.

    Args:
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to look in its transaction (default: the client's).
        filters: A job has to match all of them; see `EnqueuedFilters`. Without `state`, it has to be
            available, scheduled or suspended.

    Returns:
        The jobs as they are stored. They are in no session.

    Raises:
        ConfigError: A filter is unknown or has a wrong value.
        InstanceNotFound: There is no client of this name in this process.
        InvalidTarget: `session` is not a session or connection that the client can use.

    Example:
        ::

            [job] = await all_enqueued(worker=SendEmail, args={"to": "ada@example.com"})
            assert job.queue == "mailers"
            assert await all_enqueued(queue="media") == []
    """
    wanted = parse(filters)
    return _run("all_enqueued", clients.resolve(oban, session), session, _find(wanted, None))


@overload
def assert_enqueued(
    *,
    oban: SyncOban,
    session: SyncCaller | None = None,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> Job: ...
@overload
def assert_enqueued(
    *,
    oban: str = "Oban",
    session: SyncCaller,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> Job: ...
@overload
def assert_enqueued(
    *,
    oban: Oban | str = "Oban",
    session: AsyncCaller | None = None,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> Coroutine[Any, Any, Job]: ...
def assert_enqueued(
    *,
    oban: Oban | SyncOban | str = "Oban",
    session: AsyncCaller | SyncCaller | None = None,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> Any:
    """Check that a job is enqueued, and return it.

    Await it with an `Oban`; with a `SyncOban`, it returns at once.

    Args:
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to look in its transaction (default: the client's).
        timeout: Seconds, or a timedelta, to wait for a job at most (default 0: look once), by the machine's
            clock, also while a test moves that of jobs. In a transaction on SQLite, only jobs of
            the same transaction can appear.
        filters: The job has to match all of them; see `EnqueuedFilters`. Without `state`, it has to be
            available, scheduled or suspended.

    Returns:
        The newest job that matches, as it is stored. It is in no session.

    Raises:
        AssertionError: No job matches. The message shows the jobs that are there, the nearest match first.
        ConfigError: A filter is unknown or has a wrong value, or `timeout` is negative.
        InstanceNotFound: There is no client of this name in this process.
        InvalidTarget: `session` is not a session or connection that the client can use.

    Example:
        ::

            await assert_enqueued(worker=SendEmail, args={"to": "ada@example.com"})
            await assert_enqueued(worker=Remind, scheduled_in=timedelta(days=1))
            await assert_enqueued(queue="media", timeout=5)
    """
    __tracebackhide__ = True
    wanted, seconds = parse(filters), _seconds(timeout)
    client = clients.resolve(oban, session)
    return _run(
        "assert_enqueued", client, session, _assert(wanted, seconds, _place(client, session, seconds))
    )


@overload
def refute_enqueued(
    *,
    oban: SyncOban,
    session: SyncCaller | None = None,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> None: ...
@overload
def refute_enqueued(
    *,
    oban: str = "Oban",
    session: SyncCaller,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> None: ...
@overload
def refute_enqueued(
    *,
    oban: Oban | str = "Oban",
    session: AsyncCaller | None = None,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> Coroutine[Any, Any, None]: ...
def refute_enqueued(
    *,
    oban: Oban | SyncOban | str = "Oban",
    session: AsyncCaller | SyncCaller | None = None,
    timeout: float | timedelta = 0,
    **filters: Unpack[EnqueuedFilters],
) -> Any:
    """Check that no job that matches the filters is enqueued.

    Await it with an `Oban`; with a `SyncOban`, it returns at once.

    Args:
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to look in its transaction (default: the client's).
        timeout: Seconds, or a timedelta, during which no job may appear (default 0: look once). A job that
            a node has started before the next look, which is up to 50 ms later, counts only with `state`.
        filters: A job that matches all of them is an error; see `EnqueuedFilters`. Without `state`, only jobs
            count that are available, scheduled or suspended.

    Raises:
        AssertionError: A job matches. The message shows the newest ones that do.
        ConfigError: A filter is unknown or has a wrong value, or `timeout` is negative.
        InstanceNotFound: There is no client of this name in this process.
        InvalidTarget: `session` is not a session or connection that the client can use.

    Example:
        ::

            await refute_enqueued(worker=SendEmail, args={"to": "nobody@example.com"})
            await refute_enqueued(queue="media", timeout=0.2)
    """
    __tracebackhide__ = True
    unwanted, seconds = parse(filters), _seconds(timeout)
    client = clients.resolve(oban, session)
    return _run(
        "refute_enqueued", client, session, _refute(unwanted, seconds, _place(client, session, seconds))
    )


def _find(wanted: Sequence[Filter], most: int | None) -> Steps[list[Job]]:
    def look(tx: Transaction) -> list[Job]:
        return find(tx, at_database_time(tx, wanted), most)

    return (yield look)  # type: ignore[no-any-return]


def _wait_for(wanted: Sequence[Filter], seconds: float, most: int) -> Steps[list[Job]]:
    """The first jobs that match, as soon as there are any; none after this many seconds."""
    polling = Polling(seconds, "", _LONGEST_PAUSE)
    while True:
        if jobs := (yield from _find(wanted, most)):
            return jobs
        try:
            pause = polling.pause()
        except TimeoutError:
            return []
        yield pause


def _assert(wanted: Sequence[Filter], seconds: float, place: Place) -> Steps[Job]:
    __tracebackhide__ = True
    if jobs := (yield from _wait_for(wanted, seconds, 1)):
        return jobs[0]

    def look(tx: Transaction) -> NearestJobs:
        return explanation.find_nearest(tx, at_database_time(tx, wanted))

    nearest = yield look
    raise AssertionError(explanation.not_enqueued(wanted, nearest, place))


def _refute(unwanted: Sequence[Filter], seconds: float, place: Place) -> Steps[None]:
    __tracebackhide__ = True
    # One more than a message shows, so that it can say that there are more.
    if jobs := (yield from _wait_for(unwanted, seconds, SHOWN + 1)):
        raise AssertionError(explanation.unexpectedly_enqueued(unwanted, jobs, place))


def _run(helper: str, client: Oban | SyncOban, session: Any, steps: Steps[T]) -> Any:
    """Take the steps of a helper at once with a `SyncOban`, or return a coroutine that takes them."""
    __tracebackhide__ = True
    if isinstance(client, SyncOban):
        return _take(client, session, steps)
    return clients.named(_take_async(client, session, steps), helper)


def _take(client: SyncOban, session: SyncCaller | None, steps: Steps[T]) -> T:
    __tracebackhide__ = True
    result = None
    try:
        while True:
            step = steps.send(result)
            if isinstance(step, float):
                time.sleep(step)
                result = None
            else:
                result = client._database.read_in(session, step)
    except StopIteration as stop:
        value: T = stop.value
        return value


async def _take_async(client: Oban, session: AsyncCaller | None, steps: Steps[T]) -> T:
    __tracebackhide__ = True
    result = None
    while True:
        try:
            step = steps.send(result)
        except StopIteration as stop:
            value: T = stop.value
            return value
        if isinstance(step, float):
            await asyncio.sleep(step)
            result = None
        else:
            result = await client._database.read_in(session, step)


def _seconds(timeout: object) -> float:
    try:
        return fields.delay(timeout, "timeout")
    except InvalidJob as error:
        raise ConfigError(str(error)) from None


def _place(client: Oban | SyncOban, session: object, seconds: float) -> Place:
    database = client._database
    only_committed = False
    if session is not None:
        transaction = "in the transaction of session="
    elif database.joined is not None:
        transaction = "in the transaction that it was created in"
    elif database.shared is not None:
        transaction = "on the connection that everybody shares"
    else:
        transaction, only_committed = "in a transaction of its own", True
    name = f"The {type(client).__name__} named {display.shown(client.options.name, 60)}"
    client_name = f"{name}, on {database.dialect.name},"
    return Place(client_name, transaction, only_committed, seconds, _elsewhere(client))


def _elsewhere(client: Oban | SyncOban) -> str | None:
    """The database of the application's own client, which a test can have used instead of its fixture."""
    if client._database.joined is None:
        return None
    registered = instances.async_clients if isinstance(client, Oban) else instances.sync_clients
    other = registered.find(client.options.name, lambda each: each._database.joined is None)
    return None if other is None else dialects.redacted(other._database._sync_engine.url)
