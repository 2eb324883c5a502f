"""The registry of workers, which finds the class for the name in a row, or for an older name of a worker."""

from typing import Any, TypeVar

from oban import error_texts, main_module
from oban.errors import ConfigError, UnknownWorker

W = TypeVar("W", bound=type[Any])


class Registry(dict[str, W]):
    """Worker classes by the names that rows carry: the worker's name, and its aliases."""

    def __missing__(self, name: str) -> W:
        remedy = "import the module that defines it before starting"
        if name.startswith(f"{main_module.MAIN}."):
            # Older versions did not ask how the main module had been started.
            alias = main_module.import_name(main_module.MAIN) + name.removeprefix(main_module.MAIN)
            if alias in self:
                return self[alias]
            remedy = (
                "a script has enqueued it: run the script with `python -m`, or set the worker's option name"
            )
        raise UnknownWorker(
            f"no worker named {error_texts.log_safe(repr(name))} is registered in this process; {remedy}"
        )

    def add(self, cls: W) -> None:
        """Register a class. It replaces an older class of the same name, as when a module is reloaded.

        Raises `ConfigError` if another worker has its name or one of its aliases.
        """
        for name in names(cls):
            other = self.get(name)
            if other is not None and other.worker_name != cls.worker_name:
                ours = "name" if name == cls.worker_name else "alias"
                theirs = "the name" if name == other.worker_name else "an alias"
                raise ConfigError(f"its {ours} {name} is {theirs} of the worker {other.worker_name} already")
        self.remove(cls.worker_name)
        self.update(dict.fromkeys(names(cls), cls))

    def remove(self, name: str) -> None:
        """Remove the class of this name, if there is one."""
        if (cls := self.get(name)) is not None and cls.worker_name == name:
            for key in names(cls):
                del self[key]

    def namesakes(self, name: str) -> tuple[str, ...]:
        """All names of the worker that has a name; only this name if no worker of this process has it."""
        cls = self.get(name)
        return (name,) if cls is None else names(cls)

    def queues(self) -> dict[str, str]:
        """The queue of each worker's jobs, by the worker's name."""
        return {cls.worker_name: cls._defaults.get("queue", "default") for cls in self.values()}


def names(cls: Any) -> tuple[str, ...]:
    """The names of rows that a worker class processes, its own name first."""
    return (cls.worker_name, *cls._aliases)


#: Every worker that this process has defined.
registry: Registry[type[Any]] = Registry()
