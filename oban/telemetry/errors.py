"""The fields of events about errors."""

from typing import TypedDict

from oban import dialects, error_texts


class ErrorFields(TypedDict):
    """The fields of an event about an error."""

    error: str
    error_type: str


def error_fields(error: BaseException) -> ErrorFields:
    """The fields of an event about an error of the database or of Oban. Never raises."""
    # SQLAlchemy's message includes the statement and its parameters.
    cause = dialects.driver_error(error)
    try:
        message = error_texts.first_line(error_texts.error_message(cause))
    except BaseException:
        message = error_texts.UNPRINTABLE
    return {"error": message or "no message", "error_type": type_name(error)}


def type_name(error: BaseException) -> str:
    """The qualified name of the class of an error, such as "builtins.ValueError". Never raises."""
    # Like this, because the metaclass of the error can do anything.
    cls = type(error)
    module, name = (type.__dict__[part].__get__(cls) for part in ("__module__", "__qualname__"))
    return f"{module}.{name}" if isinstance(module, str) else str(name)
