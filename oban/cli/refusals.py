"""The message of a command whose statement has failed in the database."""

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from oban import dialects
from oban.error_texts import log_safe


def refusal(error: Exception) -> str | None:
    """What the database has refused, in a line; None for an error that is not the database's.

    Such as a timeout or a missing privilege. Whatever the command was about to change is rolled back.
    """
    if not isinstance(error, SQLAlchemyError):
        return None
    reason = log_safe(dialects.driver_message(error), 500)
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return f"the connection to the database was lost: {reason}"
    return f"the database has refused a statement: {reason}"
