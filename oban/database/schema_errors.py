"""The errors about tables that do not exist, or that an older version of Oban has made."""

import re

from sqlalchemy import URL, Select, exists, or_, select
from sqlalchemy.exc import DBAPIError

from oban import dialects
from oban.dialects.base import Dialect
from oban.errors import SchemaMissing, SchemaOutdated
from oban.models import Attempt, Job, PeriodicEntry, Tick, UniqueKey

#: The tables and the columns of `oban_jobs` that revisions after 0004 have added, with these revisions.
ADDED = {
    "unique_key": "0005",
    "unique_rule": "0005",
    "oban_unique_keys": "0005",
    "oban_periodic": "0006",
    "oban_ticks": "0006",
    "oban_attempts": "0007",
}
_ADDED = re.compile(rf"\b({'|'.join(ADDED)})\b")


def check() -> Select[tuple[str | None, object]]:
    """A statement that fails if anything of `ADDED` is missing. It returns nothing, and is not executed."""
    tables = (exists(select(table.__table__)) for table in (UniqueKey, PeriodicEntry, Tick, Attempt))
    return select(Job.unique_key, Job.unique_rule).where(or_(*tables)).limit(0)


def explain(error: DBAPIError, dialect: Dialect, url: URL, prefix: str | None) -> SchemaMissing | None:
    """What a driver's error says about the tables; None if it is about something else."""
    missing_table = dialect.is_missing_table(error)
    if not missing_table and not dialect.is_missing_column(error):
        return None
    # psycopg quotes the statement in the lines that follow.
    if found := _ADDED.search(str(error.orig).partition("\n")[0]):
        return SchemaOutdated(_outdated(found[1], url, prefix))
    return SchemaMissing(missing(dialect, url, prefix)) if missing_table else None


def missing(dialect: Dialect, url: URL, prefix: str | None) -> str:
    """The message for a database that has no Oban tables."""
    problem = dialect.missing_file(url)
    reason = f"{problem}, so " if problem else ""
    return (
        f"{reason}there are no Oban tables{_where(url, prefix)}; make them with"
        f" {_command(url, prefix)} (or `alembic upgrade head`)"
    )


def _outdated(name: str, url: URL, prefix: str | None) -> str:
    added = f"table {name}" if name.startswith("oban_") else f"column oban_jobs.{name}"
    return (
        f"the tables{_where(url, prefix)} are of an older version of Oban: there is no {added}, which"
        f" revision {ADDED[name]} adds; update them with {_command(url, prefix)} (or `alembic upgrade head`)"
    )


def _where(url: URL, prefix: str | None) -> str:
    schema = f" in the schema {prefix}" if prefix else ""
    return f"{schema} in {dialects.redacted(url)}"


def _command(url: URL, prefix: str | None) -> str:
    option = f" --prefix {prefix}" if prefix else ""
    return f"`oban install --database-url '{dialects.redacted(url)}'{option}`"
