"""Signals between processes. They only make things faster: whatever they say is also polled."""

from oban.notifier.base import Handler, Notifier
from oban.notifier.listen import ListenNotifier
from oban.notifier.poll import DataVersionNotifier
from oban.repository.transaction import Database

__all__ = ["Handler", "Notifier", "make"]


def make(database: Database) -> Notifier:
    """The notifier that fits the database."""
    if database.dialect.listens:
        return ListenNotifier(database)
    return DataVersionNotifier(database)
