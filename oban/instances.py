"""Which `Oban` or `SyncOban` answers to which name in this process, for workers that enqueue."""

from typing import Any, Generic, Protocol, TypeVar
from weakref import ref

from oban.errors import InstanceNotFound


class Instance(Protocol):
    """What a worker needs of an `Oban`."""

    async def enqueue(self, job: Any, session: Any = None) -> Any: ...


class SyncInstance(Protocol):
    """What a worker needs of a `SyncOban`."""

    def enqueue(self, job: Any, session: Any = None) -> Any: ...


Kind = TypeVar("Kind")


class Instances(Generic[Kind]):
    """The living instances of one kind by name; of two with the same name, the newer one."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._known: dict[str, list[ref[Kind]]] = {}

    def register(self, name: str, instance: Kind) -> None:
        """Let `instance` answer to `name`, as long as it lives and no newer one does."""
        living = [known for known in self._known.get(name, ()) if known() is not None]
        self._known[name] = [*living, ref(instance)]

    def named(self, name: str) -> Kind:
        """The instance of a name; raises `InstanceNotFound`."""
        for known in reversed(self._known.get(name, ())):
            if (instance := known()) is not None:
                return instance
        raise InstanceNotFound(
            f"there is no {self._kind} named {name!r} in this process;"
            f" make one with {self._kind}(…, name={name!r})"
        )


asynchronous: Instances[Instance] = Instances("Oban")
synchronous: Instances[SyncInstance] = Instances("SyncOban")
