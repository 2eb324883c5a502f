"""Who is there: the rows of producers, kept fresh by heartbeats, and the leader's lease."""

import functools
import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Executable,
    Float,
    Text,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy import cast as cast_to

from oban.database.transaction import Transaction
from oban.dialects.base import Dialect, sql_literal
from oban.models import Leader, Producer

_producers = Producer.__table__
_producer = _producers.c
_leaders = Leader.__table__
_leader = _leaders.c


#: Least lease, in seconds, of producers that say none: oban-py beats every 15 s, however short ours is.
OTHERS_LEASE = 60.0


class Heartbeat(NamedTuple):
    """What a producer says of itself: columns of its row in `oban_producers`."""

    uuid: UUID
    name: str
    node: str
    queue: str
    meta: dict[str, Any]


def heartbeat(tx: Transaction, heartbeats: Sequence[Heartbeat]) -> None:
    """Say that producers are alive, whether their rows are there (still) or not."""
    # In one order on every node, as each upsert locks its row.
    rows = [heartbeat._asdict() for heartbeat in sorted(heartbeats, key=lambda beat: beat.uuid)]
    if rows:
        dialect = tx.dialect
        insert: Any = dialect.insert(_producers).values(rows)
        given = {"meta": insert.excluded.meta, "updated_at": dialect.now()}
        # No node that freezes or is cut off before its COMMIT keeps a lock.
        tx.autocommit_next()
        tx.execute(insert.on_conflict_do_update(index_elements=[_producer.uuid], set_=given))
    else:
        # With nothing to say, it shows all the same that the database can be reached.
        database_time(tx)


def delete_producers(tx: Transaction, uuids: Sequence[UUID]) -> None:
    """Remove the rows of producers that have ended, with nothing left to acknowledge."""
    tx.execute(delete(_producers).where(_producer.uuid.in_(uuids)))


def database_time(tx: Transaction) -> datetime:
    """The database's clock."""
    moment: datetime = tx.execute(select(tx.dialect.now())).scalar_one()
    return moment


def uuid_digits(uuid: Any) -> ColumnElement[str]:
    """A uuid with dashes or without, as databases keep them, as 32 digits."""
    return func.replace(cast_to(uuid, Text), sql_literal("-"), sql_literal(""))


def stale_producers(
    tx: Transaction, lease: float, observed_for: Callable[[datetime], float] = lambda _: math.inf
) -> list[str]:
    """The producers, as 32 digits of their uuids, whose last heartbeat is older than their lease.

    `lease` is in seconds; a longer lease in the producer's own row counts instead, and producers of other
    implementations, which store none, get at least `OTHERS_LEASE`. `observed_for(now)` returns for how many
    seconds heartbeats could have been observed, `now` being the database's time: producers with a longer
    lease are not judged yet.
    """
    now = database_time(tx)
    observed = observed_for(now)
    rows = tx.execute(select(uuid_digits(_producer.uuid), _producer.updated_at, _producer.meta)).all()
    return [
        uuid
        for uuid, heartbeat_at, meta in rows
        if (own := _lease(meta, lease)) <= observed and (now - heartbeat_at).total_seconds() >= own
    ]


def _lease(meta: object, least: float) -> float:
    # Other implementations keep there what they like.
    own = meta.get("lease") if isinstance(meta, dict) else None
    if isinstance(own, bool) or not isinstance(own, (int, float)):
        return max(least, OTHERS_LEASE)
    return own if least < own < math.inf else least


def producer_uuids(tx: Transaction) -> set[UUID]:
    """All producers that have a row, however old."""
    return set(tx.execute(select(_producer.uuid)).scalars())


@functools.cache
def _elect(dialect: Dialect) -> Executable:
    lease = bindparam("lease", type_=Float)
    insert: Any = dialect.insert(_leaders).values(
        name=bindparam("instance", type_=Text),
        node=bindparam("identity", type_=Text),
        elected_at=dialect.now(),
        expires_at=dialect.now_plus(lease),
    )
    again = _leader.node == insert.excluded.node
    return insert.on_conflict_do_update(  # type: ignore[no-any-return]
        index_elements=[_leader.name],
        set_={
            "node": insert.excluded.node,
            "elected_at": case((again, _leader.elected_at), else_=insert.excluded.elected_at),
            "expires_at": insert.excluded.expires_at,
        },
        where=or_(again, _leader.expires_at <= dialect.now()),
    ).returning(_leader.node)


def elect(tx: Transaction, name: str, identity: str, lease: float) -> float | None:
    """Become the leader of an instance, or stay it, for `lease` seconds from now.

    None if so; else the seconds until the lease of the present leader ends.
    """
    dialect = tx.dialect
    parameters = {"instance": name, "identity": identity, "lease": lease}
    # The row is locked for no longer than the statement: who freezes then does not stop all elections.
    tx.autocommit_next()
    if tx.execute(_elect(dialect), parameters).scalar() is not None:
        return None
    held = select(_leader.expires_at, dialect.now()).where(_leader.name == name)
    row = tx.execute(held).one_or_none()
    if row is None:
        return 0.0
    expires: datetime = row[0]
    now: datetime = row[1]
    return max(0.0, (expires - now).total_seconds())


def resign(tx: Transaction, name: str, identity: str) -> None:
    """Give the lease up, if it is still held under this identity."""
    tx.autocommit_next()
    tx.execute(delete(_leaders).where(_leader.name == name, _leader.node == identity))
