"""Exceptions that are shown in place of ones with secret values in their texts."""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from oban import error_texts

#: Used like this because a class can replace the attributes.
_CHAIN: dict[str, Any] = {name: BaseException.__dict__[name] for name in ("__cause__", "__context__")}
_exceptions_in = BaseExceptionGroup.__dict__["exceptions"].__get__


def texts_of(error: BaseException) -> Iterator[str]:
    """All texts that handlers of log records show of an exception, and of those that have led to it."""
    yield "".join(traceback.format_exception(error))
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
        waiting += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            waiting += each.exceptions


class StandIns:
    """Makes exceptions that are shown as some are, without their secrets, and so are their causes.

    Args:
        redact: Replaces the secrets in a text.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact
        self._made: dict[int, BaseException] = {}
        self._waiting: list[BaseException] = []

    def of(self, error: BaseException) -> BaseException:
        """The exception in place of another one. Never raises."""
        try:
            stand_in = self._make(error)
            # One after the other, because chains of causes can be longer than calls can be deep.
            while self._waiting:
                each = self._waiting.pop()
                for name, attribute in _CHAIN.items():
                    if (other := attribute.__get__(each)) is not None:
                        setattr(self._made[id(each)], name, self._make(other))
                suppressed = BaseException.__dict__["__suppress_context__"].__get__(each)
                self._made[id(each)].__suppress_context__ = suppressed
            return stand_in
        # The class of the exception can do anything, and groups can be nested without an end.
        except BaseException:
            return _class(Exception, "builtins", _own(type(error), "__name__"))(error_texts.UNPRINTABLE)

    def _make(self, error: BaseException) -> BaseException:
        """The exception in place of one, to which its causes are still to be added."""
        if id(error) in self._made:
            return self._made[id(error)]
        cls = type(error)
        module, name = _own(cls, "__module__"), _own(cls, "__qualname__")
        stand_in: BaseException
        if issubclass(cls, BaseExceptionGroup):
            inner = [self._make(each) for each in _exceptions_in(error)]
            stand_in = _class(BaseExceptionGroup, module, name)(self._text(lambda: error.message), inner)  # type: ignore[attr-defined]
        else:
            stand_in = _class(Exception, module, name)(self._text(lambda: str(error)))
        self._made[id(error)] = stand_in
        self._waiting.append(error)
        with contextlib.suppress(BaseException):
            for note in error.__notes__:
                stand_in.add_note(self._text(lambda note=note: note if isinstance(note, str) else repr(note)))  # type: ignore[misc]
        stand_in.__traceback__ = BaseException.__dict__["__traceback__"].__get__(error)
        return stand_in

    def _text(self, read: Callable[[], str]) -> str:
        try:
            return self._redact(read())
        except BaseException:
            return error_texts.UNPRINTABLE


def _own(cls: type, name: str) -> str:
    # Like this, because the metaclass can do anything.
    value = type.__dict__[name].__get__(cls)
    return value if isinstance(value, str) else "builtins"


@functools.lru_cache(256)
def _class(base: type[BaseException], module: str, name: str) -> Callable[..., BaseException]:
    return type(name.rpartition(".")[2], (base,), {"__module__": module, "__qualname__": name})
