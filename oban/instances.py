"""The clients of this process by instance name, through which workers enqueue."""

from typing import Any
from weakref import ref

from oban import display
from oban.errors import InstanceNotFound


class Instances:
    """The live clients of one class. A client that is garbage-collected is forgotten."""

    def __init__(self, class_name: str) -> None:
        self._class_name = class_name
        self._clients: dict[str, list[ref[Any]]] = {}
        #: Whether a client has ever started to run jobs.
        self.have_run: bool = False

    def register(self, name: str, client: Any) -> None:
        """Add a client, which takes precedence over older ones of the same name."""
        live = [reference for reference in self._clients.get(name, ()) if reference() is not None]
        self._clients[name] = [*live, ref(client)]

    def get(self, name: str) -> Any:
        """Return the newest client of a name; raises `InstanceNotFound`."""
        for reference in reversed(self._clients.get(name, ())):
            if (client := reference()) is not None:
                return client
        shown = display.shown(name)
        raise InstanceNotFound(
            f"there is no {self._class_name} named {shown} in this process;"
            f" create one with {self._class_name}(…, name={shown})"
        )


async_clients: Instances = Instances("Oban")
sync_clients: Instances = Instances("SyncOban")
