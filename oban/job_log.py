"""`JobLogger`: what `job.log` is, a logger whose lines are also kept with the attempt."""

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from functools import partial
from typing import Any, TypeAlias

from oban import error_texts
from oban.secret_values import REDACTED, Secrets

#: Lines of this level and above are kept, whatever level the logger has.
KEPT_LEVEL = logging.INFO

#: Keeps a line of a level. The text is made only if the line is kept.
KeepLine: TypeAlias = Callable[[int, Callable[[], str]], None]

_logger = logging.getLogger("oban.job")


class JobLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger for one job, on the logger `oban.job`.

    Its records have the fields `job_id`, `worker`, `queue` and `attempt`. While a worker runs the job, lines
    of the level INFO and above, and others that the logger is enabled for, are also kept with the attempt.

    Args:
        fields: The fields of the job.
        keep: Keeps a line; None if no worker runs the job.
        secrets: The redacted values of the job, which are replaced in its lines; None if it has none.
    """

    def __init__(
        self, fields: Mapping[str, object], keep: KeepLine | None, secrets: Secrets | None = None
    ) -> None:
        super().__init__(_logger, fields)
        self._keep = keep
        self._secrets = secrets

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add the fields of the job to the `extra` of a call."""
        kwargs["extra"] = {**(kwargs.get("extra") or {}), **(self.extra or {})}
        return msg, kwargs

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the name that `logging` gave it
        """Return whether a line of this level is logged or kept."""
        return self.logger.isEnabledFor(level) or (self._keep is not None and level >= KEPT_LEVEL)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log a line as `logging.Logger.log` does, and keep it with the attempt."""
        if not self.isEnabledFor(level):
            return
        if self._secrets is not None:
            msg, args, kwargs = _redacted(self._secrets, level, msg, args, kwargs)
        if self._keep is not None:
            # The exception that is handled now, which another thread could not see.
            error = _exception(kwargs.get("exc_info"))
            self._keep(level, partial(_text, level, msg, args, error))
        if self.logger.isEnabledFor(level):
            msg, kwargs = self.process(msg, kwargs)  # type: ignore[assignment]
            # The caller of this method is where the line comes from.
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
            self.logger.log(level, msg, *args, **kwargs)


def _exception(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple):
        error = exc_info[1] if len(exc_info) > 1 else None
        return error if isinstance(error, BaseException) else None
    return sys.exception() if exc_info else None


def _redacted(
    secrets: Secrets, level: int, msg: object, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[object, tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call of a logger, with redacted values replaced. Never raises."""
    shown = {**kwargs}
    if (error := _exception(kwargs.get("exc_info"))) is not None:
        shown["exc_info"] = secrets.error(error)
    if isinstance(extra := kwargs.get("extra"), Mapping):
        shown["extra"] = {key: _redacted_field(secrets, value) for key, value in extra.items()}
    # The text is an argument, because it can have a percent sign.
    return "%s", (secrets.text(_text(level, msg, args, None)),), shown


def _redacted_field(secrets: Secrets, value: object) -> object:
    try:
        shown: object = secrets.value(value)
        # Objects that are no JSON values can be shown by their text only.
        text = repr(shown)
        redacted = secrets.text(text)
        return shown if redacted == text else redacted
    except Exception:
        return REDACTED


def _text(level: int, msg: object, args: tuple[Any, ...], error: BaseException | None) -> str:
    """The text of a line, with the traceback of its exception. Never raises."""
    try:
        text = logging.LogRecord(_logger.name, level, "", 0, msg, args, None).getMessage()
    # `logging` prints an error about arguments that do not fit, and goes on.
    except Exception as problem:
        text = f"{error_texts.log_safe(msg)} ({error_texts.error_line(problem)})"
    return text if error is None else f"{text}\n{error_texts.error_text(error)}"
