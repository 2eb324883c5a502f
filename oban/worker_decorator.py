"""`@worker`: plain classes as workers."""

import types
from collections.abc import Callable
from typing import Any, Unpack, overload

from oban import display
from oban.errors import ConfigError
from oban.fields import WorkerOptions
from oban.worker import A, Worker


@overload
def worker(cls: type[Any], /) -> type[Worker]: ...
@overload
def worker(
    *, args: type[A] | None = None, **options: Unpack[WorkerOptions]
) -> Callable[[type[Any]], type[Worker[A]]]: ...
def worker(
    cls: type[Any] | None = None, /, *, args: type[Any] | None = None, **options: Unpack[WorkerOptions]
) -> Any:
    """Make a plain class with a `process` method a worker: `@worker`, or `@worker(queue="media")`.

    mypy ignores what class decorators return: derive from `Worker` where that matters.

    Args:
        args: The type of the jobs' args, as in `Worker[…]` (default: a dict).
        options: The options of `Worker`.

    Raises:
        ConfigError: The class has no `process` method, or an option does not exist or has a wrong value.
    """

    def decorate(cls: type[Any]) -> type[Worker[Any]]:
        if not isinstance(cls, type):
            raise ConfigError(f"@worker needs a class, not {display.shown(cls)}")
        if not callable(getattr(cls, "process", None)) or getattr(cls, "process", None) is Worker.process:
            raise ConfigError(f"{cls.__qualname__} needs a process method")
        members = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
        generic: Any = Worker
        base = generic[args] if args else Worker
        bases = (cls,) if issubclass(cls, Worker) and args is None else (cls, base)
        # new_class() passes the options on to __init_subclass__, which registers the class.
        return types.new_class(cls.__name__, bases, {**options}, lambda namespace: namespace.update(members))

    return decorate if cls is None else decorate(cls)
