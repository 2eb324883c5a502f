"""How fast a cluster recovers after an outage of its database."""

from sqlalchemy import URL, text

from tests.faults import recording
from tests.faults.history import History

#: Seconds within which every node must start jobs again once the database is back.
BACK = 5.0


def leaders_and_producers(url: URL, since: float) -> tuple[int, int]:
    """The number of leaders, and of producers with a heartbeat since a time."""
    leaders = text("SELECT count(*) FROM oban_leaders WHERE expires_at > timezone('UTC', now())")
    alive = text(
        "SELECT count(*) FROM oban_producers WHERE updated_at > timezone('UTC', to_timestamp(:since))"
    )
    with recording.connected(url) as connection:
        return connection.scalar(leaders) or 0, connection.scalar(alive, {"since": since}) or 0


def claimers(url: URL, since: float) -> int:
    """The number of nodes that have claimed a job since a time."""
    statement = text("SELECT count(DISTINCT node) FROM oban_history WHERE new = 'executing' AND at > :since")
    with recording.connected(url) as connection:
        return connection.scalar(statement, {"since": since}) or 0


def delays(history: History, back: list[float]) -> list[float]:
    """The seconds from each return of the database to the next claim of each node."""
    nodes = sorted({change.node for change in history.changes if change.node})
    found = []
    for since, until in zip(back, [*back[1:], float("inf")], strict=True):
        for node in nodes:
            claims = [
                change.at
                for change in history.changes
                if change.new == "executing" and change.node == node and since < change.at < until
            ]
            found.append(min(claims, default=float("inf")) - since)
    return found
