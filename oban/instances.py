"""Which `Oban` answers to which name in this process, for workers that enqueue by themselves."""

from typing import Any, Protocol
from weakref import WeakValueDictionary

from oban.errors import InstanceNotFound


class Instance(Protocol):
    """What a worker needs of an `Oban`."""

    async def enqueue(self, job: Any, session: Any = None) -> Any: ...


_instances: WeakValueDictionary[str, Instance] = WeakValueDictionary()


def register(name: str, instance: Instance) -> None:
    """Let `instance` answer to `name`; the newest one wins."""
    _instances[name] = instance


def named(name: str) -> Instance:
    """The instance of a name; raises `InstanceNotFound`."""
    try:
        return _instances[name]
    except KeyError:
        raise InstanceNotFound(
            f"there is no Oban named {name!r} in this process; make one with Oban(…, name={name!r})"
        ) from None
