"""Checks of functions that users pass to Oban: how they are called, and what a call returns."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from oban import display
from oban.errors import ConfigError


def name(function: Any) -> str:
    """The name of a function, or of the class of another callable, for messages."""
    while isinstance(function, functools.partial):
        function = function.func
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def is_async(function: Any) -> bool:
    """Whether a call returns a coroutine: an `async def`, or an object with an async `__call__`."""
    return any(map(inspect.iscoroutinefunction, _called(function)))


def is_generator(function: Any) -> bool:
    """Whether a call only makes a generator, sync or async, because the body has a `yield`."""
    return any(
        inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)
        for called in _called(function)
    )


def _called(function: Any) -> tuple[Any, Any]:
    return function, getattr(function, "__call__", None)  # noqa: B004


def takes(function: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether a callable can be called like this; True if its signature is not known."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*args, **kwargs)
    except TypeError:
        return False
    return True


def middleware(value: Any) -> tuple[Callable[..., Any], ...]:
    """The functions in the option `middleware`. Raises `ConfigError` if one cannot be a middleware."""
    if not isinstance(value, (list, tuple)):
        raise ConfigError(f"middleware must be a list of functions, not {type(value).__name__}")
    for function in value:
        _check_middleware(function)
    return tuple(value)


def check_lifespan(function: Any) -> None:
    """Raise `ConfigError` if the option `lifespan` cannot be a function that returns a context manager."""
    if function is None:
        return
    if not callable(function):
        raise ConfigError(f"lifespan must be a function that takes the Oban, not {display.shown(function)}")
    if is_async(function) or is_generator(function):
        kind = "a coroutine function" if is_async(function) else "a generator"
        raise ConfigError(
            f"lifespan {name(function)} is {kind}: decorate an async generator with"
            " contextlib.asynccontextmanager"
        )
    if not takes(function, None):
        raise ConfigError(f"lifespan {name(function)} must take one argument, the Oban")


def _check_middleware(function: Any) -> None:
    if not callable(function):
        raise ConfigError(f"middleware must be functions; {display.shown(function)} cannot be called")
    if inspect.isclass(function):
        raise ConfigError(f"middleware {name(function)} is a class: pass an instance with a __call__ method")
    if is_generator(function):
        raise ConfigError(
            f"middleware {name(function)} is a generator: call call_next(job) and return the result, without"
            " yield"
        )
    if not takes(function, None, None):
        raise ConfigError(f"middleware {name(function)} must take two arguments: job and call_next")
