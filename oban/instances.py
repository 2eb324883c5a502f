"""The clients of this process by instance name, through which workers enqueue."""

from collections.abc import Callable
from typing import Any
from weakref import ref

from oban import display, forks
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

    def forget(self, client: Any) -> None:
        """Remove a client, so that an older one of its name is the newest again."""
        for name, references in self._clients.items():
            self._clients[name] = [reference for reference in references if reference() is not client]

    def find(self, name: str, is_meant: Callable[[Any], bool] = lambda _: True) -> Any:
        """Return the newest client of a name that is meant, or None.

        One on a connection that is closed, as it is after a test, is not found.
        """
        for reference in reversed(self._clients.get(name, ())):
            if (client := reference()) is not None and is_meant(client) and not client._database.is_over:
                return client
        return None

    def get(self, name: str) -> Any:
        """Return the newest client of a name; raises `InstanceNotFound`."""
        if (client := self.find(name)) is not None:
            return client
        shown = display.shown(name)
        raise InstanceNotFound(
            f"there is no {self._class_name} named {shown} in this process;"
            f" create one with {self._class_name}(…, name={shown})"
        )


async_clients: Instances = Instances("Oban")
sync_clients: Instances = Instances("SyncOban")
#: Whether this is a child process of a node, which runs jobs with `executor="process"`.
in_child_process: bool = False


def for_sync_calls(name: str) -> Any:
    """Return the `SyncOban` of a name or else the `Oban` that runs jobs; raises `InstanceNotFound`."""
    client = sync_clients.find(name) or async_clients.find(name, lambda client: client._runs_jobs)
    if client is not None:
        return client
    shown = display.shown(name)
    if in_child_process or forks.is_child:
        where = "in this child process, where the Oban of its node cannot be used"
    else:
        where = "in this process, and no Oban of this name that runs jobs"
    raise InstanceNotFound(f"there is no SyncOban named {shown} {where}; create SyncOban(…, name={shown})")
