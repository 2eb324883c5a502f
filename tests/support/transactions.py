"""Transactions for calling repository functions directly."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.util import greenlet_spawn

from oban import Oban, dialects
from oban.database.binding import write_bind
from oban.database.hooks import SessionHooks
from oban.database.transaction import JoinedTransaction


def joined(session: Session, prefix: str | None = None) -> JoinedTransaction:
    """The transaction of a session, as a repository function gets it for `session=`."""
    bind = write_bind(session)
    hooks = partial(SessionHooks.of, session)
    return JoinedTransaction(session, bind, dialects.for_bind(bind), prefix, hooks)


@asynccontextmanager
async def uncommitted(oban: Oban, function: Any, *args: Any) -> AsyncIterator[None]:
    """Run a repository function in a transaction of Oban's own, which stays open and is not committed."""
    transaction = oban._database._begin()
    await greenlet_spawn(function, transaction, *args)
    try:
        yield
    finally:
        await greenlet_spawn(transaction.__exit__, None, None, None)
