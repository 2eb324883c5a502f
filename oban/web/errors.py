"""The errors that the dashboard answers with a page."""


class WebError(Exception):
    """A request that cannot be answered as it was meant. The text is shown to the user."""

    status = 400


class Refused(WebError):
    """The user may not do this."""

    status = 403


class NotFound(WebError):
    """There is no such job, queue or entry."""

    status = 404


class Busy(WebError):
    """The database has not answered in time."""

    status = 503
