"""The errors that the dashboard answers with a page."""

from oban.errors import DatabaseUnavailable, SchemaMissing


class WebError(Exception):
    """A request that cannot be answered as it was meant. The text is shown to the user.

    Attributes:
        status: The status of the response.
        title: What has happened, in a few words; empty for those of the status.
    """

    status = 400
    title = ""


class Refused(WebError):
    """The user may not do this."""

    status = 403


class NotFound(WebError):
    """There is no such job, queue or entry."""

    status = 404


class TooLarge(WebError):
    """The request has more data than the dashboard takes."""

    status = 413


class Busy(WebError, TimeoutError):
    """The database has not answered in time."""

    status = 503
    title = "The database has not answered in time"


class Unavailable(WebError, DatabaseUnavailable):
    """There is no connection to the database."""

    status = 503
    title = "The database does not answer"


class NoSchema(WebError, SchemaMissing):
    """The tables do not exist, or an older version of Oban has made them."""

    status = 503
    title = "The tables of Oban are missing or out of date"
