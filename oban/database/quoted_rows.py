"""Removes values of rows from the messages of errors about Oban's own statements.

PostgreSQL quotes a row that it refuses, args and meta included: `DETAIL:  Failing row contains (…)`.
"""

import re
from typing import Any

from sqlalchemy.exc import DBAPIError

from oban.secret_values import REDACTED

#: A DETAIL, up to the next field or the end.
_DETAIL = re.compile(
    r"(?P<label>\bDETAIL: +).*?(?=\n(?:HINT|QUERY|CONTEXT|SCHEMA NAME|TABLE NAME|LOCATION): |\n\[SQL: |\Z)",
    re.DOTALL,
)
#: The key of the detail in the fields that pg8000 reports.
_PG8000_DETAIL = "D"


def hide(error: DBAPIError) -> None:
    """Replace the details in the messages of an error, and of the driver's, if a statement of Oban's failed.

    The driver's structured fields, such as `diag` of psycopg, stay as they are: nothing prints them.
    """
    if "oban_" not in (error.statement or ""):
        return
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


def _without_detail(argument: Any) -> Any:
    if isinstance(argument, str):
        return _DETAIL.sub(rf"\g<label>{REDACTED}", argument)
    if isinstance(argument, dict) and _PG8000_DETAIL in argument:
        return {**argument, _PG8000_DETAIL: REDACTED}
    return argument
