"""Tell the nodes of an instance, when the transaction commits, what they can do at once.

All of it would happen a little later without these notifications.
"""

from collections.abc import Iterable

from oban.database.transaction import Transaction
from oban.dialects.base import InsertTrigger

#: The action of the signal that the leader has resigned. oban-py ignores it.
RESIGN = "resign"
#: The action of the signal that periodic entries have changed. oban-py ignores it, too.
PERIODIC = "periodic"


def announce_available(tx: Transaction, queues: Iterable[object]) -> None:
    """Tell the producers of some queues that jobs are available."""
    # SQLite stores values of any type in a text column, if another program writes them.
    names = sorted({queue for queue in queues if isinstance(queue, str)})
    tx.notify("insert", [{"queue": name} for name in names])


def announce_due(tx: Transaction, seconds: float | None = None) -> None:
    """Tell the stagers that a job becomes due in some seconds, or that due times have changed."""
    payload = {"action": "stage"} if seconds is None else {"action": "stage", "in": seconds}
    tx.notify("signal", [payload])


def announce_cancelled(tx: Transaction, job_ids: Iterable[int]) -> None:
    """Tell the nodes that execute some jobs that these are cancelled."""
    # Other implementations send `pkill` without `done`, and leave it to the node to change the row.
    tx.notify("signal", [{"action": "pkill", "job_id": job_id, "done": True} for job_id in job_ids])


def announce_resigned(tx: Transaction, name: str, identity: str) -> None:
    """Tell the nodes of an instance that its leader has resigned."""
    tx.notify("signal", [{"action": RESIGN, "name": name, "node": identity}])


def announce_periodic(tx: Transaction, name: str) -> None:
    """Tell the leader of an instance that its periodic entries have changed."""
    # Nodes of the previous release take an unknown action for a command, unless it is for another node.
    tx.notify("signal", [{"action": PERIODIC, "name": name, "ident": ""}])


def announce_echo(tx: Transaction, token: str) -> None:
    """Send a node its own notification. Other nodes ignore it, because nobody runs a queue of this name."""
    tx.autocommit_next()
    tx.notify("insert", [{"queue": token}])


def insert_trigger(tx: Transaction, schema: str | None) -> InsertTrigger | None:
    """The trigger that announces inserted jobs; None without the tables, or if the client announces them."""
    tx.autocommit_next()
    return tx.dialect.insert_trigger(tx.connection(), schema)
