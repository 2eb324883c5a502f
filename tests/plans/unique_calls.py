"""The calls for unique and periodic jobs. Their tables are large, and one key has most of the jobs."""

from typing import Any, NamedTuple

from oban import encoding, guard
from oban.database.transaction import Transaction
from oban.guard import Candidate
from oban.repository import periodic, ticks
from oban.repository.unique_statement import unique_statement
from oban.types import STATES
from tests.plans.call import Call
from tests.plans.table import BUSY_KEY, ENTRIES

UNIQUE = "oban_jobs_unique_key_index"
CLAIMS = "oban_unique_keys_pkey"
TICKS = "oban_ticks_tick_index"
TICK = "oban_ticks_pkey"
ENTRY = "oban_periodic_pkey"
ABSENT = "absent"


class Rule(NamedTuple):
    """A rule as `oban.guard` needs it: by default, for ever and with any state."""

    states: tuple[str, ...] = tuple(STATES)
    period: float | None = None
    timestamp: str = "inserted_at"


SUCCESSFUL = tuple(state for state in STATES if state not in ("cancelled", "discarded"))
RULES = {
    "for ever": Rule(SUCCESSFUL),
    "incomplete": Rule(("available", "scheduled", "suspended", "executing", "retryable")),
    "one state": Rule(("completed",)),
    "a minute": Rule(SUCCESSFUL, 60.0),
    "a year": Rule(SUCCESSFUL, 365 * 86400.0),
    "a year of schedules": Rule(SUCCESSFUL, 365 * 86400.0, "scheduled_at"),
}
#: No index is ordered by this time, so all entries of a key in these states are read, but none of the rows.
SCHEDULES = Rule(SUCCESSFUL, 60.0, "scheduled_at")
BUSY_PAGES = 2500


def look(key: str, rule: Rule, found: int, count: int = 1) -> Call:
    candidates = [Candidate(key if n == 0 else f"{key}-{n}", rule) for n in range(count)]

    def run(tx: Transaction) -> int:
        return sum(id_ is not None for id_ in guard.find_conflicts(tx, tx.dialect, candidates))

    return Call(run, {UNIQUE}, count, 30, found)


def claim(count: int) -> Call:
    keys = [BUSY_KEY, *(f"new-{n}" for n in range(count - 1))]

    def run(tx: Transaction) -> int:
        guard.claim(tx, tx.dialect, keys)
        return count

    return Call(run, {CLAIMS}, count, 10, count, on_sqlite=False)


def insert(count: int, rule: Rule, conflicts: int) -> Call:
    """Insert unique jobs, the first of them with the busy key."""
    keys = [BUSY_KEY, *(f"new-{n}" for n in range(1, count))]

    def run(tx: Transaction) -> int:
        records: list[dict[str, Any]] = [
            {"n": n, "args": {}, "unique_key": key, "unique_rule": {}, "period": rule.period}
            for n, key in enumerate(keys)
        ]
        parameters: Any = {"first_queue": "q", "first_worker": "w", "jobs": encoding.dumps(records)}
        rows = tx.rows(unique_statement(tx.dialect, guard.look_of(rule)), parameters)
        return sum(row.n is not None for row in rows)

    return Call(run, {UNIQUE, CLAIMS, "oban_jobs_pkey"}, count, 40, conflicts, on_sqlite=False)


CALLS: dict[str, Call] = {
    **{
        f"find a conflict, {name}": look(BUSY_KEY, rule, name not in ("incomplete", "a minute"))
        for name, rule in RULES.items()
    },
    **{f"find none, {name}": look(ABSENT, rule, 0) for name, rule in RULES.items()},
    "find none, a minute of schedules": Call(look(BUSY_KEY, SCHEDULES, 0).run, {UNIQUE}, 1, BUSY_PAGES, 0),
    "find 200 conflicts": look(BUSY_KEY, RULES["for ever"], 1, 200),
    "effective entries": Call(lambda tx: periodic.load_entries(tx, "Oban"), {ENTRY}, ENTRIES, 1, ENTRIES),
    "claim 1 key": claim(1),
    "claim 200 keys": claim(200),
    "insert 1 unique job": insert(1, RULES["for ever"], 1),
    "insert 50 unique jobs": insert(50, RULES["for ever"], 1),
    "insert 50 unique jobs for a minute": insert(50, RULES["a minute"], 0),
    "insert 50 unique jobs for a year": insert(50, RULES["a year"], 1),
    "prune ticks": Call(ticks.prune_ticks, {TICKS, TICK, ENTRY}, 0, 0, 0),
}
