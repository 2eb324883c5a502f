"""Removes values of rows from the messages of errors about Oban's own statements.

PostgreSQL quotes a row that it refuses, args and meta included, as in `DETAIL:  Failing row contains (…)`,
and a document that it cannot read, as in `CONTEXT:  JSON data, line 1: …`.
"""

import re
from typing import Any

from sqlalchemy.exc import DBAPIError

from oban.secret_values import REDACTED

#: A DETAIL or CONTEXT, up to the next field or the end.
_DETAIL = re.compile(
    r"(?P<label>\b(?:DETAIL|CONTEXT): +).*?"
    r"(?=\n(?:HINT|QUERY|CONTEXT|SCHEMA NAME|TABLE NAME|LOCATION): |\n\[SQL: |\Z)",
    re.DOTALL,
)
#: The keys of the detail and of the context in the fields that pg8000 reports.
_PG8000_FIELDS = ("D", "W")


def hide(error: DBAPIError) -> None:
    """Replace the details in the messages of an error, and of the driver's, if a statement of Oban's failed.

    The driver's structured fields, such as `diag` of psycopg, stay as they are: nothing prints them.
    """
    if "oban_" not in (error.statement or ""):
        return
    before = str(error.orig)
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error, error.orig]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        each.args = tuple(map(_without_detail, each.args))
        # asyncpg puts it into the message whenever that is printed.
        if isinstance(getattr(each, "detail", None), str):
            each.detail = REDACTED  # type: ignore[attr-defined]
        waiting += [each.__cause__, each.__context__]
    # SQLAlchemy's message has the driver's, in which pg8000 shows its fields as a dict.
    after = str(error.orig)
    error.args = tuple(each.replace(before, after) if isinstance(each, str) else each for each in error.args)


def _without_detail(argument: Any) -> Any:
    if isinstance(argument, str):
        return _DETAIL.sub(rf"\g<label>{REDACTED}", argument)
    if isinstance(argument, dict):
        return argument | dict.fromkeys(argument.keys() & _PG8000_FIELDS, REDACTED)
    return argument
