"""The message of a command that the database or the operating system has refused something."""

import errno

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from oban import dialects
from oban.error_texts import first_line, log_safe


def refusal(error: Exception) -> str | None:
    """What was refused, in a line; None for an error of another kind.

    Such as a timeout, a missing privilege or a full disk. Whatever the command was about to change in the
    database is rolled back.
    """
    # click ends a command whose reader has gone, such as `head`.
    if isinstance(error, OSError) and error.errno != errno.EPIPE:
        return first_line(str(error)) or type(error).__name__
    if not isinstance(error, SQLAlchemyError):
        return None
    reason = log_safe(dialects.driver_message(error), 500)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return f"the connection to the database was lost: {reason}"
    return f"the database has refused a statement: {reason}"
