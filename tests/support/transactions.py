"""Transactions for calling repository functions directly."""

from sqlalchemy.orm import Session

from oban import dialects
from oban.database.hooks import SessionHooks
from oban.database.transaction import JoinedTransaction


def joined(session: Session, prefix: str | None = None) -> JoinedTransaction:
    """The transaction of a session, as a repository function gets it for `session=`."""
    return JoinedTransaction(session, dialects.for_bind(session), prefix, SessionHooks.of(session))
