"""Each filter of `all_enqueued` finds the same jobs on every database, and refuses what it cannot mean."""

import dataclasses
import enum
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, insert, text, update

from oban import Job, JobState, SyncOban, Worker, clock, job
from oban.errors import ConfigError
from oban.testing import all_enqueued, assert_enqueued, matching, refute_enqueued
from tests.support.databases import Factory
from tests.support.rows import row
from tests.support.statements import recorded

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
ID = uuid.UUID("0b5f3a86-30e4-4c3a-9a67-1c8b7d1a2e01")
MAIL, SEND = "tests.enqueued.Mail", "tests.enqueued.send"


class Mail(Worker, name=MAIL, aliases=["tests.enqueued.OldMail"]):
    async def process(self, job: Job) -> None: ...


@job(name=SEND)
def send(to: str) -> None: ...


class Sku(enum.Enum):
    X = "x"


@dataclasses.dataclass
class Order:
    id: int
    day: date


#: More values than are compared in SQL.
LONG = {f"key{number}": number for number in range(20)}
#: The jobs that the cases look for: what each has, and what all others do not have.
JOBS: dict[str, dict[str, Any]] = {
    "mail": {"worker": MAIL, "args": {"to": "ada", "cc": None, "n": 1, "yes": True}, "queue": "mailers"},
    "old": {"worker": "tests.enqueued.OldMail", "args": {"to": "bob", "n": 2}, "tags": ["a", "vip"]},
    "send": {"worker": SEND, "args": {"to": "ada"}, "priority": 9, "max_attempts": 3},
    "nested": {"args": {"order": {"id": 7, "lines": [{"sku": "x", "n": 1}, {"sku": "y"}], "tags": []}}},
    "typed": {"args": {"id": 7, "day": "2030-01-01", "account": str(ID)}, "meta": {"by": {"name": "ada"}}},
    "soon": {"scheduled_at": NOON + timedelta(hours=1), "state": "scheduled"},
    "later": {"scheduled_at": NOON + timedelta(hours=2), "state": "scheduled"},
    "suspended": {"state": "suspended"},
    "running": {"state": "executing", "attempt": 2},
    "retryable": {"state": "retryable", "attempt": 1, "scheduled_at": NOON + timedelta(days=1)},
    "done": {"state": "completed", "completed_at": NOON, "args": {"to": "ada"}, "worker": MAIL},
    "dropped": {"state": "discarded", "discarded_at": NOON + timedelta(seconds=5)},
    "stopped": {"state": "cancelled", "cancelled_at": NOON - timedelta(seconds=5)},
}
#: The jobs that are found without a filter of states.
ENQUEUED = ["mail", "old", "send", "nested", "typed", "soon", "later", "suspended"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def connection(request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection in a transaction with all `JOBS`, whose meta has their names."""
    factory: Factory = request.getfixturevalue(f"{request.param}_factory")
    url = factory.create()
    driver = "pysqlite" if request.param == "sqlite" else "psycopg"
    engine = create_engine(url.set(drivername=f"{url.get_backend_name()}+{driver}"))
    defaults = {"worker": "tests.enqueued.Other", "args": {}, "scheduled_at": NOON - timedelta(days=9)}
    with engine.connect() as connection:
        for name, columns in JOBS.items():
            values = row(**{**defaults, **columns})
            values["meta"] = {**values["meta"], "name": name}
            connection.execute(insert(Job.__table__), values)
        yield connection
    engine.dispose()
    factory.drop(url)


@pytest.fixture
def oban(connection: Connection) -> Iterator[SyncOban]:
    """A client in that transaction, at noon."""
    with clock.use(clock.MovableClock(NOON)):
        yield SyncOban(connection)


def found(oban: SyncOban, **filters: Any) -> list[str]:
    """The names of the jobs that are found, in the order of their insertion."""
    return [job.meta["name"] for job in reversed(all_enqueued(oban=oban, **filters))]


def deep(levels: int) -> Any:
    value: Any = object()
    for _ in range(levels):
        value = [value]
    return value


MEANT: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ENQUEUED),
    # worker
    ({"worker": Mail}, ["mail", "old"]),
    ({"worker": MAIL}, ["mail"]),
    ({"worker": send}, ["send"]),
    ({"worker": [Mail, send]}, ["mail", "old", "send"]),
    ({"worker": "tests.enqueued.Nobody"}, []),
    # queue
    ({"queue": "mailers"}, ["mail"]),
    ({"queue": ("mailers", "default"), "worker": Mail}, ["mail", "old"]),
    ({"queue": "empty"}, []),
    # state
    ({"state": "scheduled"}, ["soon", "later"]),
    ({"state": JobState.COMPLETED}, ["done"]),
    ({"state": ["retryable", JobState.EXECUTING]}, ["running", "retryable"]),
    ({"state": list(JobState), "worker": MAIL}, ["mail", "done"]),
    # tags
    ({"tags": "vip"}, ["old"]),
    ({"tags": [" VIP", "a"]}, ["old"]),
    ({"tags": {"vip", "b"}}, []),
    ({"tags": [], "worker": MAIL}, ["mail"]),
    # args and meta
    ({"args": {"to": "ada"}}, ["mail", "send"]),
    ({"args": {"to": "ada", "n": 1}}, ["mail"]),
    ({"args": {"to": "Ada"}}, []),
    ({"args": {}, "worker": MAIL}, ["mail"]),
    ({"args": {"n": 1.0}}, ["mail"]),
    ({"args": {"n": True}}, []),
    ({"args": {"n": "1"}}, []),
    ({"args": {"yes": True}}, ["mail"]),
    ({"args": {"yes": 1}}, []),
    ({"args": {"cc": None}}, ["mail"]),
    ({"args": {"bcc": None}}, []),
    ({"args": {"order": {"id": 7}}}, ["nested"]),
    ({"args": {"order": {"id": 8}}}, []),
    ({"args": {"order": {}}}, ["nested"]),
    ({"args": {"order": {"id": {}}}}, []),
    ({"args": {"order": {"tags": []}}}, ["nested"]),
    ({"args": {"order": {"tags": {}}}}, []),
    ({"args": {"order": {"lines": [{"sku": "x"}, {}]}}}, ["nested"]),
    ({"args": {"order": {"lines": ({"n": 1}, {"sku": "y"})}}}, ["nested"]),
    ({"args": {"order": {"lines": [{"sku": "y"}, {"sku": "x"}]}}}, []),
    ({"args": {"order": {"lines": [{"sku": "x"}]}}}, []),
    ({"args": {"order": {"lines": [{"n": True}, {}]}}}, []),
    ({"args": {"account": ID}}, ["typed"]),
    ({"args": {"day": date(2030, 1, 1)}}, ["typed"]),
    ({"args": Order(7, date(2030, 1, 1))}, ["typed"]),
    ({"args": Order(8, date(2030, 1, 1))}, []),
    ({"args": {"order": {"lines": [{"sku": Sku.X}, {"sku": "y"}]}}}, ["nested"]),
    ({"args": LONG}, []),
    ({"args": {"order": {"lines": [{"n": 1}, {"sku": "y", "n": 1}]}}}, []),
    ({"args": {"order": {"lines": [[], {"sku": "y"}]}}}, []),
    ({"args": {"to": ["a"]}}, []),
    ({"meta": {"by": {"name": "ada"}}}, ["typed"]),
    ({"meta": {"name": "old"}, "args": {"to": "bob"}}, ["old"]),
    # numbers
    ({"priority": 9}, ["send"]),
    ({"max_attempts": 3}, ["send"]),
    ({"attempt": 2, "state": "executing"}, ["running"]),
    ({"attempt": 1}, []),
    # times
    ({"scheduled_at": NOON + timedelta(hours=1)}, ["soon"]),
    ({"scheduled_at": NOON + timedelta(hours=1, milliseconds=999)}, ["soon"]),
    ({"scheduled_at": NOON + timedelta(hours=1, milliseconds=1001)}, []),
    ({"scheduled_at": (NOON + timedelta(minutes=59), 60)}, ["soon"]),
    ({"scheduled_at": (NOON + timedelta(minutes=59), timedelta(seconds=59))}, []),
    ({"scheduled_at": (NOON + timedelta(hours=1), 0)}, ["soon"]),
    ({"scheduled_at": (NOON + timedelta(minutes=90), timedelta(hours=1))}, ["soon", "later"]),
    ({"scheduled_at": (NOON + timedelta(hours=1)).astimezone(timezone(timedelta(hours=5)))}, ["soon"]),
    ({"scheduled_at": (NOON, timedelta(days=4000 * 365)), "state": "scheduled"}, ["soon", "later"]),
    ({"scheduled_in": 3600}, ["soon"]),
    ({"scheduled_in": timedelta(hours=2)}, ["later"]),
    ({"schedule_in": 3600.5}, ["soon"]),
    ({"scheduled_in": 3602}, []),
    ({"scheduled_in": (timedelta(hours=1), 10)}, ["soon"]),
    ({"scheduled_in": (3590, 9)}, []),
    ({"scheduled_in": 86_400, "state": "retryable"}, ["retryable"]),
    ({"completed_at": NOON, "state": "completed"}, ["done"]),
    ({"discarded_at": (NOON, 5), "state": "discarded"}, ["dropped"]),
    ({"cancelled_at": (NOON, 4), "state": "cancelled"}, []),
    ({"completed_at": None, "state": ["completed", "cancelled"]}, ["stopped"]),
    ({"attempted_at": None}, ENQUEUED),
    ({"attempted_at": None, "state": "executing"}, []),
    ({"inserted_at": NOON}, []),
    # several
    ({"worker": Mail, "args": {"to": "bob"}, "tags": "a", "queue": "default"}, ["old"]),
    ({"worker": Mail, "args": {"to": "bob"}, "queue": "mailers"}, []),
]


# pytest-xdist needs the same ids in each process, in which sets and functions are shown differently.
@pytest.mark.parametrize(("filters", "names"), MEANT, ids=range(len(MEANT)))
def test_a_filter_finds(filters: dict[str, Any], names: list[str], oban: SyncOban) -> None:
    assert found(oban, **filters) == names
    if names:
        assert assert_enqueued(oban=oban, **filters).meta["name"] == names[-1]
    else:
        refute_enqueued(oban=oban, **filters)


def test_a_job_is_found_by_its_id_and_times(oban: SyncOban) -> None:
    [soon] = all_enqueued(oban=oban, scheduled_in=3600)
    assert [job.id for job in all_enqueued(oban=oban, id=soon.id)] == [soon.id]
    assert soon.id in [job.id for job in all_enqueued(oban=oban, inserted_at=soon.inserted_at)]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"wroker": Mail}, "there is no filter 'wroker'; did you mean worker?"),
    ({"due": 1}, "there is no filter 'due'; known are args, attempt"),
    ({"worker": None}, "worker: a worker is its class, its @job function or its name, not None"),
    ({"worker": Worker}, "Worker itself has no jobs"),
    ({"worker": " "}, "worker must not be blank"),
    ({"worker": []}, "worker: at least one is needed"),
    ({"queue": None}, "queue must be a string, not NoneType"),
    ({"queue": "a b"}, "'a b' is not a queue name"),
    ({"state": "complete"}, "'complete' is not a state; did you mean completed?"),
    ({"state": []}, "state: at least one is needed"),
    ({"state": 5}, "state must be a JobState or its value, not int"),
    ({"args": 5}, "args must be a dict, not int"),
    ({"args": {"a": {"b": object()}}}, 'args["a"]["b"] is not JSON: object'),
    ({"args": Order}, "args must be a dict, not type"),
    ({"args": {"a": deep(200)}}, "levels deep"),
    ({"meta": {1: 2}}, "meta[1] is under a key that is not a string"),
    ({"tags": 5}, "tags must be a list of strings, not int"),
    ({"tags": [5]}, "tags must be strings; 5 is not"),
    ({"priority": 10}, "priority must be 0 to 9, not 10"),
    ({"priority": True}, "priority must be an integer, not bool"),
    ({"max_attempts": 0}, "max_attempts must be 1 to 32767, not 0"),
    ({"attempt": -1}, "attempt must be 0 to 32767, not -1"),
    ({"id": "1"}, "id must be an integer, not str"),
    ({"scheduled_at": NOON.replace(tzinfo=None)}, "scheduled_at must carry a time zone"),
    ({"scheduled_at": date(2030, 1, 1)}, "scheduled_at must be a datetime, not date"),
    ({"scheduled_at": None}, "scheduled_at must be a datetime, not NoneType"),
    ({"scheduled_at": (NOON,)}, "scheduled_at: a tuple has the value and its tolerance"),
    ({"scheduled_at": (NOON, -1)}, "scheduled_at: the tolerance must not be negative: -1"),
    ({"scheduled_at": (NOON, "1")}, "the tolerance of scheduled_at must be seconds or a timedelta, not str"),
    ({"scheduled_in": NOON}, "scheduled_in must be seconds or a timedelta, not datetime"),
    ({"scheduled_in": float("nan")}, "scheduled_in must be finite, not nan"),
    ({"scheduled_in": 1, "schedule_in": 1}, "scheduled_in and schedule_in exclude each other"),
]


@pytest.mark.parametrize(("filters", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_filter_is_refused(filters: dict[str, Any], message: str) -> None:
    # Before a client is looked for, as there is none.
    for helper in (all_enqueued, assert_enqueued, refute_enqueued):
        with pytest.raises(ConfigError) as caught:
            helper(oban="nobody", **filters)
        assert message in str(caught.value)


@pytest.mark.parametrize("timeout", [-1, float("inf"), None, "1", True, timedelta(seconds=-1)])
def test_a_wrong_timeout_is_refused(timeout: Any) -> None:
    for helper in (assert_enqueued, refute_enqueued):
        with pytest.raises(ConfigError, match="timeout must"):
            helper(oban="nobody", timeout=timeout)


def test_a_large_table_is_not_read_to_find_a_few_jobs(
    oban: SyncOban, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "PAGE", 100)
    table: Any = Job.__table__
    with connection.begin_nested() as savepoint:
        columns = row(worker="tests.enqueued.Many", args={"n": 1, **LONG}, queue="many")
        connection.execute(insert(table), [columns] * 250)
        nested = {"order": {"lines": [{"sku": "x"}, {}]}}
        with recorded(connection.engine) as statements:
            assert found(oban, worker=Mail, args={"to": "bob"}) == ["old"]
            assert found(oban, args=nested) == ["nested"]
            refute_enqueued(oban=oban, queue="mailers", args=nested)
            assert_enqueued(oban=oban, worker="tests.enqueued.Many")
        # One page each, with the rows that match.
        assert len([each for each in statements if each.startswith("SELECT")]) == 4
        # Further pages follow if there are more, also of jobs that match only what SQL compares.
        assert len(all_enqueued(oban=oban, queue="many")) == 250
        assert found(oban, args={**LONG, "n": 2}) == []
        connection.execute(update(table).where(table.c.worker == MAIL).values(args={**LONG, "n": 2}))
        assert found(oban, args={**LONG, "n": 2}) == ["mail"]
        assert assert_enqueued(oban=oban, args={**LONG, "n": 2}).worker == MAIL
        savepoint.rollback()


#: Values that databases and Python compare in ways of their own, or whose keys mean something in a path.
DOCUMENTS: list[Any] = [
    *(None, True, False, 0, 1, 1.5, -7, 2**53 + 1, 2**63 - 1, 1e300, "", "1", "null", "true", "ä\U0001f4a9"),
    *(
        'a"b',
        "a'b",
        "\\",
        "%s",
        ":x",
        [],
        {},
        [[]],
        [{}],
        [None],
        [1],
        [True],
        [1, 2],
        [2, 1],
        ["1"],
        [[1], {}],
    ),
    *({"0": 1}, {"": 1}, {"a.b": 1}, {"$": {"[0]": 1}}, {"a": None}, {"a": {}}, {"a": []}, {"a": [{"b": 1}]}),
    *(
        {"a": {"b": 1}},
        {"a": {"b": 1, "c": 2}},
        {"a": {"b": True}},
        {"a": [{"b": 1, "c": [3]}]},
        {'a"b': {"'": 1}},
    ),
]


def is_part(wanted: Any, actual: Any) -> bool:
    """Whether a value matches, as the documentation says it."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(
            key in actual and is_part(value, actual[key]) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(actual, list) and [*map(is_part, wanted, actual)] == [True] * max(
            len(wanted), len(actual)
        )
    return type(wanted) is type(actual) and wanted == actual


def test_parts_of_documents_match_in_the_same_way_on_every_database(
    oban: SyncOban, connection: Connection
) -> None:
    with connection.begin_nested() as savepoint:
        rows = [
            row(args={"v": value}, worker="parts", meta={"name": str(n)}) for n, value in enumerate(DOCUMENTS)
        ]
        connection.execute(insert(Job.__table__), rows)
        for wanted in DOCUMENTS:
            expected = [str(n) for n, value in enumerate(DOCUMENTS) if is_part(wanted, value)]
            assert found(oban, worker="parts", args={"v": wanted}) == expected, wanted
        savepoint.rollback()


def test_a_row_that_cannot_be_decoded_is_in_nobodys_way(oban: SyncOban, connection: Connection) -> None:
    with connection.begin_nested() as savepoint:
        broken = "'[1]'" if connection.dialect.name == "postgresql" else "'{'"
        connection.execute(
            text(f"UPDATE oban_jobs SET args = {broken} WHERE worker = 'tests.enqueued.Other'")
        )
        assert found(oban, args={"to": "ada"}) == ["mail", "send"]
        with pytest.raises(AssertionError, match="nearest match first"):
            assert_enqueued(oban=oban, worker="tests.enqueued.Other", args={"order": {"id": 7}})
        savepoint.rollback()
