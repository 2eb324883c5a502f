"""Which `Oban` answers to which name in this process, for workers that enqueue by themselves."""

from typing import Any, Protocol
from weakref import ref

from oban.errors import InstanceNotFound


class Instance(Protocol):
    """What a worker needs of an `Oban`."""

    async def enqueue(self, job: Any, session: Any = None) -> Any: ...


_instances: dict[str, list[ref[Instance]]] = {}


def register(name: str, instance: Instance) -> None:
    """Let `instance` answer to `name`, as long as it lives and no newer one does."""
    living = [known for known in _instances.get(name, ()) if known() is not None]
    _instances[name] = [*living, ref(instance)]


def named(name: str) -> Instance:
    """The instance of a name; raises `InstanceNotFound`."""
    for known in reversed(_instances.get(name, ())):
        if (instance := known()) is not None:
            return instance
    raise InstanceNotFound(
        f"there is no Oban named {name!r} in this process; make one with Oban(…, name={name!r})"
    )
