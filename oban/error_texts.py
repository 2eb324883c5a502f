"""Texts about errors and values that can be stored in `errors`, or written to a line of a log."""

import itertools
import traceback

import orjson

#: The longest traceback or message in `errors`, in bytes of JSON.
MAX_ERROR = 8192
#: Takes the place of the message of an exception whose methods fail.
UNPRINTABLE = "<the exception could not be printed>"
#: The beginning of the traceback of an exception group, whose further lines begin with a bar.
_GROUP = "  + Exception Group Traceback"


#: Read like this because a subclass can replace the attribute.
_exceptions_in = BaseExceptionGroup.__dict__["exceptions"].__get__


def sanitize(value: str, limit: int = MAX_ERROR) -> str:
    """Replace NUL characters and surrogates; if the JSON exceeds `limit` bytes, cut out the middle."""
    if len(value) <= limit:
        text = _without_faults(value)
        if len(orjson.dumps(text)) <= limit:
            return text
    # A character takes one byte or more, so no more than this is needed of either end.
    head, tail = (_without_faults(part).encode() for part in (value[:limit], value[-limit:]))
    room = limit - 64
    while True:
        half = room // 2
        first, last = head[:half].decode(errors="ignore"), tail[-half:].decode(errors="ignore")
        left_out = len(value) - len(first) - len(last)
        text = f"{first}\n… {left_out:,} characters left out …\n{last}"
        size = len(orjson.dumps(text))
        if left_out > 0 and size <= limit:
            return text
        # In JSON, quotes take two bytes and control characters six: try again with less.
        room = min(room * limit // size, room - room // 16 - 1)


def log_safe(value: object, limit: int = 255) -> str:
    """A value for one line of a log: up to `limit` characters, without control characters."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}…"


def _without_faults(value: str) -> str:
    return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def error_text(error: BaseException) -> str:
    """The traceback of an exception as a string that can be stored. Never raises."""
    try:
        return sanitize("".join(traceback.format_exception(error)).rstrip())
    except BaseException:
        # The exception's __str__() can do anything, and so can its metaclass when asked for its name.
        name = type.__dict__["__qualname__"].__get__(type(error))
        lines = traceback.format_tb(error.__traceback__)
        return sanitize("".join([*lines, f"{name}: {UNPRINTABLE}"]))


def has_surrogates(error: BaseException) -> bool:
    """Whether a file in UTF-8 cannot hold the traceback of an exception that `error_text` can print."""
    try:
        "".join(traceback.format_exception(error)).encode()
    except UnicodeEncodeError:
        return True
    return False


def error_line(error: BaseException) -> str:
    """The type of an exception and the first line of its message, for a line of a log. Never raises."""
    name = type.__dict__["__name__"].__get__(type(error))
    try:
        message = first_line(error_message(error))
    except BaseException:
        message = UNPRINTABLE
    return f"{log_safe(name)}: {message}" if message else log_safe(name)


def error_message(error: BaseException) -> str:
    """The message of an exception. That of a group names the first exception in it, too.

    Raises what `__str__()` of the exception raises.
    """
    message, inner = str(error), error
    while issubclass(type(inner), BaseExceptionGroup):
        inner = _exceptions_in(inner)[0]
    return message if inner is error else f"{message}: {error_line(inner)}"


def first_line(text: str) -> str:
    """The first line of a text that is not blank, for a line of a log."""
    # As a plain str, because the methods of a subclass can do anything. A longer line is cut anyway.
    lines = str.__str__(text)[:1000].strip().splitlines()
    return log_safe(lines[0].rstrip(), 500) if lines else ""


def last_error(errors: object) -> str:
    """What the last entry of a job's `errors` says, in one line; empty if it says nothing."""
    # Other programs can store anything.
    entry = errors[-1] if isinstance(errors, list) and errors else None
    error = entry.get("error") if isinstance(entry, dict) else entry
    return stored_error_line(error) if isinstance(error, str) else ""


def stored_error_line(error: str) -> str:
    """The line of a stored error that has the type of the exception and its message, after the traceback."""
    lines = error.splitlines()
    if lines and lines[0].startswith(_GROUP):
        lines = [line.removeprefix("  | ") for line in lines if line.startswith("  | ")]
    places = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    if places:
        # The line of code, and marks below it, are indented further.
        lines = [*itertools.dropwhile(lambda line: line.startswith("    "), lines[places[-1] + 1 :])]
    return first_line("\n".join(lines)) or first_line(error)
