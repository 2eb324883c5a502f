"""`reset_oban`: an empty queue for the next test."""

from collections.abc import Coroutine
from typing import Any, overload

from sqlalchemy import delete
from sqlalchemy.orm import Session

from oban import ddl
from oban.client import Oban
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.transaction import Transaction
from oban.errors import ConfigError
from oban.models import Base, Job, metadata
from oban.sync_client import SyncOban
from oban.testing import clients


@overload
def reset_oban(oban: SyncOban, session: SyncCaller | None = None) -> None: ...
@overload
def reset_oban(oban: str = "Oban", *, session: SyncCaller) -> None: ...
@overload
def reset_oban(
    oban: Oban | str = "Oban", session: AsyncCaller | None = None
) -> Coroutine[Any, Any, None]: ...
def reset_oban(
    oban: Oban | SyncOban | str = "Oban", session: AsyncCaller | SyncCaller | None = None
) -> Coroutine[Any, Any, None] | None:
    """Delete everything that Oban has stored in the database, and count the ids of jobs from 1 again.

    All jobs are deleted, in whatever state they are, and what is stored about unique jobs, periodic jobs,
    queues and nodes, of every client of these tables. The foreign keys of the application's tables decide
    what happens to rows that refer to a job. A test in a transaction that is rolled back does not need this.

    Await it with an `Oban`; with a `SyncOban`, it returns at once.

    Args:
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to delete in its transaction (default: the client's,
            which commits unless it was created with a session or connection).

    Raises:
        ConfigError: The client is running jobs. Stop it before, and other nodes of the database as well.
        InstanceNotFound: There is no client of this name in this process.
        InvalidTarget: `session` is not a session or connection that the client can use.

    Example:
        ::

            @pytest.fixture(autouse=True)
            async def empty_queue():
                yield
                await reset_oban()
    """
    client = clients.resolve(oban, session)
    caller: Any = session
    joined = client._database.joined
    joined_session = None if joined is None else joined.session
    if isinstance(client, SyncOban):
        return client._database.run(caller, delete_everything, joined_session)
    if client._runs_jobs:
        raise ConfigError(
            "this Oban runs jobs, whose rows reset_oban would delete and whose ids it would give to other"
            " jobs: stop it first"
        )
    return clients.named(client._database.run(caller, delete_everything, joined_session), "reset_oban")


def delete_everything(tx: Transaction, joined: Session | None) -> None:
    """Empty all tables, and restart the ids of jobs. Calls that insert jobs wait for this transaction.

    The session that the client works in, which is on the same connection, forgets its instances as well.
    """
    tx.dialect.begin_write(tx.connection())
    for table in metadata.sorted_tables:
        tx.execute(delete(table))
    ddl.restart_ids(Job.__table__, tx.connection(), tx.prefix or tx.mapped_schema())
    # New jobs get the ids of these.
    for session in (tx.session, *([joined] if joined is not None else ())):
        for instance in list(session.identity_map.values()):
            if isinstance(instance, Base):
                session.expunge(instance)
