"""Notifications between nodes. They only make things faster: everything that they announce is also polled."""

from sqlalchemy import URL

from oban.config import NotifierKind
from oban.database.aio import Database
from oban.notifier.base import Handler, Notifier
from oban.notifier.listen import ListenNotifier, direct_url
from oban.notifier.poll import DataVersionNotifier, PollNotifier

__all__ = ["Handler", "Notifier", "direct_url", "make"]


def make(database: Database, kind: NotifierKind = "listen", listen_url: str | URL | None = None) -> Notifier:
    """Return the notifier for a database; `kind` and `listen_url` as in `oban.config.Options`."""
    if kind == "poll":
        return PollNotifier(database)
    if database.dialect.listens:
        return ListenNotifier(database, listen_url)
    return DataVersionNotifier(database)
