"""The answers of `Oban` and of `SyncOban` to questions about their instance."""

from oban.config import Options
from oban.database.aio import Database
from oban.database.joined import AsyncCaller, SyncCaller
from oban.database.sync import SyncDatabase
from oban.inspection_operations import InspectionOperations


class AsyncInspection(InspectionOperations[AsyncCaller]):
    """The answers of `Oban`."""

    options: Options
    _database: Database


class SyncInspection(InspectionOperations[SyncCaller]):
    """The answers of `SyncOban`."""

    options: Options
    _database: SyncDatabase
