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
    queues and nodes, of every client of these tables. Rows of the application that refer to a job are treated
    as their foreign keys say. A test in a transaction that is rolled back does not need this.

    It is awaited if `oban` is an `Oban`, or if it is a name and an event loop runs in this thread.

    Args:
        oban: A client, or the name of one (default "Oban").
        session: The caller's session or connection, to delete in its transaction (default: the client's,
            which is committed unless the client was created in a transaction).

    Raises:
        ConfigError: The client is running jobs. Stop it before, and other nodes of the database as well.
        InstanceNotFound: There is no client of this name.
        InvalidTarget: `session` is none that the client can use.

    Example:
        ::

            @pytest.fixture(autouse=True)
            async def empty_queue():
                yield
                await reset_oban()
    """
    client = clients.resolve(oban, session)
    caller: Any = session
    if isinstance(client, Oban) and client._runs_jobs:
        raise ConfigError(
            "this Oban runs jobs, whose rows reset_oban would delete and whose ids it would give to other"
            " jobs: stop it first"
        )
    joined = client._database.joined
    return client._database.run(caller, delete_everything, joined.session if joined is not None else None)


def delete_everything(tx: Transaction, joined: Session | None) -> None:
    """Empty all tables, and restart the ids of jobs. Others who insert a job wait for this transaction.

    The instances of `joined`, which is on the same connection, are forgotten as well.
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
