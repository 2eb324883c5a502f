"""The calls for unique and periodic jobs. Their tables are large, and one key has most of the jobs."""

from datetime import UTC, datetime

from sqlalchemy import update

from oban import guard
from oban.database.transaction import Transaction
from oban.guard import Candidate
from oban.models import PeriodicEntry
from oban.repository import insert, periodic, retry, ticks, unique_keys
from oban.repository.selection import parse
from oban.unique import Unique
from tests.plans.call import Call
from tests.plans.table import BUSY_ARGS, BUSY_KEY, ENTRIES, UNUSED_KEY
from tests.support.unique_jobs import unique_job

KEY = "oban_jobs_pkey"
UNIQUE = "oban_jobs_unique_key_index"
CLAIMS = "oban_unique_keys_pkey"
TICKS = "oban_ticks_tick_index"
TICK = "oban_ticks_pkey"
ENTRY = "oban_periodic_pkey"


KEYS = unique_keys.BATCH
YEAR = 365 * 86400.0
RULES = {
    "for ever": Unique(),
    "incomplete": Unique(states="incomplete"),
    "a minute": Unique(period=60),
    "a year": Unique(period=YEAR),
    "a year of schedules": Unique(period=YEAR, timestamp="scheduled_at"),
}
#: No index is ordered by this time, so all entries of a key in these states are read, but none of the rows.
SCHEDULES = Unique(period=60, timestamp="scheduled_at")
BUSY_PAGES = 2500


def fire_due(tx: Transaction) -> int:
    """Fire all entries of the instance, which are due for a reboot."""
    columns = PeriodicEntry.__table__.c
    declared = {"expression": "@reboot", "worker": "app.Worker"}
    changed = update(PeriodicEntry.__table__).where(columns.name == "Oban")
    tx.execute(changed.values(declared=declared, last_tick=None))
    names = [f"entry-{number}" for number in range(1, ENTRIES + 1)]
    return len(ticks.fire(tx, "Oban", names, YEAR, reboot=datetime.now(UTC)).ticks)


def look(key: str, rule: Unique, found: int, count: int = 1) -> Call:
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


def delete_keys(count: int) -> Call:
    """Delete keys that no job has, and keep the one that most jobs have."""
    keys = [
        BUSY_KEY,
        *(f"{UNUSED_KEY}{n}" for n in range(1, count)),
    ]
    return Call(lambda tx: unique_keys.delete_keys(tx, keys), {CLAIMS, UNIQUE}, count, 15, 0, on_sqlite=False)


def insert_jobs(count: int, rule: Unique, conflicts: int) -> Call:
    """Insert unique jobs, the first of them with the busy key."""

    def run(tx: Transaction) -> int:
        others = [unique_job(n, rule, worker="app.Worker") for n in range(1, count)]
        jobs = [unique_job(rule=rule, worker="app.Worker", args=BUSY_ARGS), *others]
        insert.insert_all(tx, jobs, attach=True)
        return sum(job.conflict for job in jobs)

    # SQLite looks first, as in the calls above, and its INSERT reads no table.
    return Call(run, {UNIQUE, CLAIMS, KEY}, count, 40, conflicts, on_sqlite=False)


CALLS: dict[str, Call] = {
    **{
        f"find a conflict, {name}": look(BUSY_KEY, rule, name not in ("incomplete", "a minute"))
        for name, rule in RULES.items()
    },
    "find no conflict": look("absent", RULES["for ever"], 0),
    "find no conflict, a minute of schedules": Call(
        look(BUSY_KEY, SCHEDULES, 0).run, {UNIQUE}, 1, BUSY_PAGES, 0
    ),
    "find 200 conflicts": look(BUSY_KEY, RULES["for ever"], 1, 200),
    "claim 200 keys": claim(200),
    "insert 1 unique job": insert_jobs(1, RULES["for ever"], 1),
    "insert 50 unique jobs": insert_jobs(50, RULES["for ever"], 1),
    "insert 50 unique jobs, a minute": insert_jobs(50, RULES["a minute"], 0),
    "retry 50 unique jobs": Call(
        lambda tx: retry.retry_jobs(tx, parse(range(1, 5000, 100))), {UNIQUE, CLAIMS, KEY}, 50, 50, 0
    ),
    "delete 1,000 keys": delete_keys(1000),
    "walk through the keys": Call(
        lambda tx: unique_keys.keys_after(tx, ""),
        {CLAIMS},
        unique_keys.BATCH,
        1,
        unique_keys.BATCH,
        on_sqlite=False,
    ),
    "effective entries": Call(lambda tx: periodic.load_entries(tx, "Oban"), {ENTRY}, ENTRIES, 1, ENTRIES),
    "fire due entries": Call(fire_due, {ENTRY, TICK, KEY}, ENTRIES, 30, ENTRIES),
    "prune ticks": Call(ticks.prune_ticks, {TICKS, TICK, ENTRY}, 0, 0, 0),
}
