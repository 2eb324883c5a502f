"""Inserts the jobs of periodic entries in a test, as the leader of an instance does."""

from collections.abc import Coroutine, Sequence
from typing import Any, overload

from sqlalchemy import Float, Select, literal, select, update

from oban.client import Oban
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.transaction import Transaction
from oban.models import Job, PeriodicEntry
from oban.periodic import Periodic
from oban.repository import cluster, periodic, ticks
from oban.runner.services.scheduler import emit_inserted
from oban.sync_client import SyncOban
from oban.testing import clients
from oban.worker_entries import declared_entries

_entry = PeriodicEntry.__table__.c

#: How long ago, in seconds, an entry begins when it is declared. A time of this minute is due then.
_BEGUN = 60.0


@overload
def insert_periodic_jobs(
    *, oban: Oban | str = "Oban", session: AsyncCaller | None = None
) -> Coroutine[Any, Any, list[Job]]: ...
@overload
def insert_periodic_jobs(*, oban: SyncOban, session: SyncCaller | None = None) -> list[Job]: ...
@overload
def insert_periodic_jobs(*, oban: str = "Oban", session: SyncCaller) -> list[Job]: ...
def insert_periodic_jobs(
    *, oban: Oban | SyncOban | str = "Oban", session: AsyncCaller | SyncCaller | None = None
) -> Coroutine[Any, Any, list[Job]] | list[Job]:
    """Insert the jobs of all periodic entries that are due, as a running node does.

    The entries are those of workers with `cron=`, of `Oban(periodic=[…])` and of `add_periodic`. The first
    call declares those of the code, as a node does when it starts. An entry is then due if it has a time in
    the minute before the call. At a later call, an entry is due if it had a time since the previous one, as
    far as its `catch_up` and `window` allow. No time inserts a job twice.

    An entry for `@reboot` is never due here: pass its name to `run_periodic`.

    Await it with an `Oban`; with a `SyncOban`, it returns at once.

    Args:
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to insert in its transaction (default: the client's).

    Returns:
        The jobs, in the order of their ids.

    Raises:
        InstanceNotFound: There is no client of this name in this process.
        InvalidTarget: `session` is not a session or connection that the client can use.
        ConfigError: Two entries of the code have the same name, or the stored timing of one is wrong.
        InvalidJob: The stored values of an entry make no valid job.
    """
    client = clients.resolve(oban, session)
    options = client.options
    entries = declared_entries(options.name, options.periodic)
    arguments: Any = (options.name, entries, options.lease, options.max_attempts)
    caller: Any = session
    if isinstance(client, Oban):
        return clients.named(_insert(client, caller, arguments), "insert_periodic_jobs")
    fired = client._database.run(caller, _fire, *arguments)
    emit_inserted(client.telemetry, fired, in_transaction=session is not None)
    return client.list_jobs(_jobs(fired), caller)


async def _insert(client: Oban, session: Any, arguments: Any) -> list[Job]:
    fired = await client._database.run(session, _fire, *arguments)
    emit_inserted(client.telemetry, fired, in_transaction=session is not None)
    return await client.list_jobs(_jobs(fired), session)


def _jobs(fired: ticks.Fired) -> Select[Any]:
    ids = sorted({tick.job_id for tick in fired.ticks})
    return select(Job).where(Job.id.in_(ids)).order_by(Job.id)


def _fire(
    tx: Transaction, name: str, entries: Sequence[Periodic], lease: float, max_attempts: int | None
) -> ticks.Fired:
    """Declare the entries of the code, and fire all that are due."""
    known = {entry.name for entry in periodic.load_entries(tx, name)}
    periodic.declare(tx, name, entries, cluster.database_time(tx), lease)
    if new := sorted({entry.name for entry in entries} - known):
        begun = update(PeriodicEntry.__table__).where(
            # Those for `@reboot` have no time at which they begin.
            _entry.name == name,
            _entry.entry.in_(new),
            _entry.last_tick.is_not(None),
        )
        tx.execute(begun.values(last_tick=tx.dialect.now_minus(literal(_BEGUN, Float))))
    fired = ticks.fire(
        tx, name, [entry.name for entry in periodic.load_entries(tx, name)], lease, max_attempts=max_attempts
    )
    for entry, error in fired.failures:
        error.add_note(f"The periodic entry {entry} could not insert a job.")
        raise error
    return fired
