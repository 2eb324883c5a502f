"""`@worker`: plain classes as workers."""

import types
from collections.abc import Callable, Mapping
from typing import Any, Unpack, overload

from oban import arguments, display
from oban.errors import ConfigError
from oban.fields import DecoratorOptions
from oban.worker import A, Worker


@overload
def worker(cls: type[Any], /) -> type[Worker]: ...
@overload
def worker(
    *, args: type[A] | Mapping[str, Any] | None = None, **options: Unpack[DecoratorOptions]
) -> Callable[[type[Any]], type[Worker[A]]]: ...
def worker(cls: type[Any] | None = None, /, *, args: Any = None, **options: Unpack[DecoratorOptions]) -> Any:
    """Make a plain class with a `process` method a worker: `@worker`, or `@worker(queue="media")`.

    mypy ignores what class decorators return: derive from `Worker` where that matters.

    Args:
        args: The type of the jobs' args, as in `Worker[…]` (default: a dict). With `cron`, it can also be
            the args of the periodic jobs.
        options: The options of `Worker`.

    Returns:
        The class, which is a `Worker` now, or a decorator that makes it one.

    Raises:
        ConfigError: The class has no `process` method, or an option does not exist or has a wrong value.
    """

    def decorate(cls: type[Any]) -> type[Worker[Any]]:
        if not isinstance(cls, type):
            raise ConfigError(f"@worker needs a class, not {display.shown(cls)}")
        if not callable(getattr(cls, "process", None)) or getattr(cls, "process", None) is Worker.process:
            raise ConfigError(f"{cls.__qualname__} needs a process method")
        members = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        passed: dict[str, Any] = {**options}
        declared = args
        if arguments.is_value(args):
            # A worker that declares a type already checks the args by it.
            declared = None if isinstance(args, Mapping) or issubclass(cls, Worker) else type(args)
            passed["args"] = args
        generic: Any = Worker
        base = generic[declared] if declared else Worker
        bases = (cls,) if issubclass(cls, Worker) and declared is None else (cls, base)
        # new_class() passes the options on to __init_subclass__, which registers the class.
        return types.new_class(cls.__name__, bases, passed, lambda namespace: namespace.update(members))

    return decorate if cls is None else decorate(cls)
