"""The tables as declarative models."""

from sqlalchemy import MetaData

from oban.models.attempt import Attempt
from oban.models.base import Base
from oban.models.cluster import Leader, Producer, Queue
from oban.models.job import COLUMN_KEYS, DEFAULT_MAX_ATTEMPTS, Job, identity_key
from oban.models.periodic import PeriodicEntry, Tick
from oban.models.unique import UniqueKey

__all__ = [
    "COLUMN_KEYS",
    "DEFAULT_MAX_ATTEMPTS",
    "Attempt",
    "Base",
    "Job",
    "Leader",
    "PeriodicEntry",
    "Producer",
    "Queue",
    "Tick",
    "UniqueKey",
    "identity_key",
    "metadata",
]

#: Oban's tables, for an application to add to Alembic's `target_metadata`.
metadata: MetaData = Base.metadata

# The constructor of a model would do this at its first call, but `Job._from_row` does not call it.
Base.registry.configure()
