"""The tree of errors: everything that this library raises on purpose is an `ObanError`."""


class ObanError(Exception):
    """Root of every error that Oban raises itself."""


class ConfigError(ObanError, ValueError):
    """An option, a URL or a prefix that cannot be used as given."""


class UnsupportedDatabase(ConfigError):
    """A URL or an engine of a database, or of a driver, that Oban does not speak."""


class SchemaMissing(ObanError, RuntimeError):
    """The Oban tables are not in the database yet."""


class SchemaMismatch(ObanError, RuntimeError):
    """Tables of these names are there, but they cannot be brought up to date as they are."""


class DatabaseUnavailable(ObanError, ConnectionError):
    """The database cannot be reached, or refuses the connection."""


class WouldDeadlock(ObanError, RuntimeError):
    """A job waits for what its own session keeps: SQLite has one writer at a time."""


class InvalidJob(ObanError, ValueError):
    """A job field holds what it must not; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field} {problem}")
        self.field = field


class EncodingError(InvalidJob):
    """A value that cannot be stored as JSON; `field` is the path to it, such as `args["a"][0]`."""


class InvalidTarget(ObanError, TypeError):
    """What was passed to name a job is neither a `Job`, an integer id nor a `select(Job)`."""


class NotEnqueued(ObanError, ValueError):
    """A `Job` without an id: it was never enqueued."""


class JobNotFound(ObanError, LookupError):
    """No job has this id; `ids` holds all that are missing."""

    def __init__(self, ids: list[int]) -> None:
        more = f" and {len(ids) - 10:,} more" if len(ids) > 10 else ""
        super().__init__("no job has the id " + ", ".join(map(str, ids[:10])) + more)
        self.ids = ids


class WrongLoop(ObanError, RuntimeError):
    """An `Oban` that runs jobs was used on another event loop than its own."""


class UnknownWorker(ObanError, LookupError):
    """A job names a worker that is not registered in this process."""


class InstanceNotFound(ObanError, LookupError):
    """No `Oban` of this name exists in this process."""
