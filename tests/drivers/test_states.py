"""States in an application's statements on PostgreSQL, with every driver.

The order of states is that of the enum. Only statements that compare what they select make asyncpg ask the
server about a type.
"""

from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import pytest
from sqlalchemy import (
    Row,
    Select,
    Text,
    bindparam,
    case,
    cast,
    column,
    delete,
    desc,
    exists,
    func,
    insert,
    literal,
    literal_column,
    or_,
    select,
    text,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session, aliased

from oban import Job, JobState
from oban.types import StateType
from tests.drivers.callers import DRIVERS, Application, is_sqlite
from tests.support.databases import PostgreSQLFactory
from tests.support.introspection import record_introspections
from tests.support.rows import TABLE, row

#: The states of the jobs 1 to 6, also in the order of the enum, and each with the number of its jobs.
STATES = ["available", "scheduled", "executing", "completed", "available", "cancelled"]
IN_ORDER = ["available", "available", "scheduled", "executing", "completed", "cancelled"]
COUNTS = [("available", 2), ("scheduled", 1), ("executing", 1), ("completed", 1), ("cancelled", 1)]
EACH = [name for name, _ in COUNTS]

state: Any = Job.state
other: Any = aliased(Job)
label = state.label("s")
subquery, cte = select(Job).subquery(), select(Job).cte("found")
number = func.count()


def ids(condition: Any, **parameters: Any) -> Select[Any]:
    return select(Job.id).where(condition).order_by(Job.id).params(**parameters)


def having(*states: str) -> Select[Any]:
    return select(Job).where(state.in_(states))


#: Each with its rows, of which a job stands for its id.
READS: list[tuple[Any, list[Any]]] = [
    (select(Job).order_by(Job.id), [1, 2, 3, 4, 5, 6]),
    (select(TABLE.c.state).order_by(TABLE.c.id), STATES),
    (ids(state == "available"), [1, 5]),
    (ids(state == JobState.AVAILABLE), [1, 5]),
    (ids(state != "available"), [2, 3, 4, 6]),
    (ids(state.in_(["available", JobState.EXECUTING])), [1, 3, 5]),
    (ids(state.in_([])), []),
    (ids(state.not_in(["available", "executing"])), [2, 4, 6]),
    (ids(state < "executing"), [1, 2, 5]),
    (ids(state.between("scheduled", "completed")), [2, 3, 4]),
    (ids(state.is_distinct_from("available")), [2, 3, 4, 6]),
    (ids(state == bindparam("x"), x="available"), [1, 5]),
    (ids(state == bindparam("x", type_=StateType), x=None), []),
    (ids(state.in_(bindparam("x", expanding=True)), x=["cancelled"]), [6]),
    (ids(state == cast("available", StateType)), [1, 5]),
    (ids(or_(state == "cancelled", exists().where(other.state == state, other.id != Job.id))), [1, 5, 6]),
    (ids(state.in_(select(other.state).where(other.id == 1))), [1, 5]),
    (select(state).order_by(state, Job.id), IN_ORDER),
    (select(Job).order_by(state.desc(), Job.id), [6, 4, 3, 2, 1, 5]),
    (select(Job).order_by(case((state == "executing", 0), else_=1), Job.id), [3, 1, 2, 4, 5, 6]),
    (select(state, number).group_by(state).order_by(state), COUNTS),
    (select(state).where(state == "available").distinct(), ["available"]),
    (select(Job).distinct().order_by(Job.id), [1, 2, 3, 4, 5, 6]),
    (select(number).select_from(select(state).distinct().subquery()), [5]),
    (select(func.max(state), func.min(state)), [("cancelled", "available")]),
    (select(case((Job.id == 1, state), else_=literal("cancelled", StateType))).where(Job.id < 2), EACH[:1]),
    (select(literal("available", StateType)), ["available"]),
    (select(other.state).order_by(other.state), IN_ORDER),
    (select(subquery.c.state).order_by(subquery.c.state), IN_ORDER),
    (select(aliased(Job, subquery)).order_by(subquery.c.state, subquery.c.id), [1, 5, 2, 3, 4, 6]),
    (select(cte.c.state, number).group_by(cte.c.state).order_by(cte.c.state), COUNTS),
    (union_all(select(state).where(Job.id == 1), select(other.state).where(other.id == 2)), EACH[:2]),
    (select(Job).from_statement(union_all(having("scheduled"), having("executing"))), [2, 3]),
    (having("available").order_by(Job.id).limit(1).with_for_update(skip_locked=True), [1]),
]
NAMES: list[Any] = ["state", text("state"), literal_column("state"), column("state"), text("1")]
DESCENDING: list[Any] = [desc("state"), text("state DESC")]
LABELS: list[Any] = [label, "s"]
#: They compare what they select, by its name, by DISTINCT or in a UNION.
COMPARING: list[tuple[Any, list[Any]]] = [
    *((select(state).order_by(name), IN_ORDER) for name in NAMES),
    *((select(state).order_by(name), IN_ORDER[::-1]) for name in DESCENDING),
    *((select(label).order_by(name), IN_ORDER) for name in LABELS),
    *((select(label, number).group_by(name).order_by(state), COUNTS) for name in LABELS),
    (select(label, number).group_by(label).having(state != "cancelled").order_by(label), COUNTS[:-1]),
    (select(state).distinct().order_by(state), EACH),
    (select(state, Job.queue).distinct().order_by(state.desc()), [(each, "default") for each in EACH[::-1]]),
    (select(state.distinct()).order_by(state), EACH),
    (select(state.distinct().label("s")).order_by(state), EACH),
    (select(Job.queue.distinct(), state).order_by(state), [("default", each) for each in EACH]),
    (select(Job.args.distinct()), [{"path": ["a", 1, None]}]),
    (select(state).union(select(other.state)).order_by("state"), EACH),
    (
        union_all(select(state).where(Job.id == 1), select(type_coerce(other.state, Text)).limit(0)),
        ["available"],
    ),
]
new_state, new_job = {"worker": "w", "state": "suspended"}, {"worker": "w", "state": "available"}
upsert: Any = postgresql.insert(Job).values(id=1, **new_state)


class Write(NamedTuple):
    """A statement, its parameters and rows, and the states of all jobs afterwards."""

    statement: Any
    parameters: Any
    rows: list[Any]
    stored: list[str]


WRITES = [
    Write(
        update(Job).where(state == "scheduled").values(state="available").returning(Job.id, state),
        *(None, [(2, "available")], ["available", "available", *STATES[2:]]),
    ),
    Write(
        update(TABLE).values(
            state=case((state == "scheduled", literal("retryable", StateType)), else_=state)
        ),
        *(None, [], ["available", "retryable", *STATES[2:]]),
    ),
    Write(
        update(Job),
        [{"id": 1, "state": "suspended"}, {"id": 2, "state": JobState.EXECUTING}],
        *([], ["suspended", "executing", *STATES[2:]]),
    ),
    Write(
        update(TABLE)
        .where(TABLE.c.id == bindparam("key"), TABLE.c.state == bindparam("old"))
        .values(state=bindparam("new")),
        [
            {"key": 1, "old": "available", "new": "suspended"},
            {"key": 2, "old": "available", "new": "completed"},
        ],
        *([], ["suspended", *STATES[1:]]),
    ),
    Write(
        delete(Job).where(state.in_(["cancelled", "completed"])).returning(state),
        *(None, ["completed", "cancelled"], [*STATES[:3], "available"]),
    ),
    Write(insert(Job).returning(Job.id, state), new_state, [(7, "suspended")], [*STATES, "suspended"]),
    Write(
        insert(Job).returning(Job.id, state, sort_by_parameter_order=True),
        [new_state, new_job],
        *([(7, "suspended"), (8, "available")], [*STATES, "suspended", "available"]),
    ),
    Write(insert(TABLE), [new_state, new_job], [], [*STATES, "suspended", "available"]),
    Write(
        insert(Job).values([new_state, {"worker": "w"}]).returning(state),
        *(None, ["suspended", "available"], [*STATES, "suspended", "available"]),
    ),
    Write(
        insert(Job).from_select(["worker", "state"], select(Job.worker, state).where(state == "executing")),
        *(None, [], [*STATES, "executing"]),
    ),
    Write(
        upsert.on_conflict_do_update(
            index_elements=[Job.id], set_={"state": "executing"}, where=state == "available"
        ).returning(state),
        *(None, ["executing"], ["executing", *STATES[1:]]),
    ),
]


@pytest.fixture(scope="module", params=[name for name in DRIVERS if not is_sqlite(name)])
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def app(driver: str, postgresql_factory: PostgreSQLFactory) -> AsyncIterator[Application]:
    url = postgresql_factory.create()
    application = Application(driver, url)
    async with application.session() as session:
        for each in STATES:
            await session.execute(insert(TABLE).values(row(each)))
        await session.commit()
    yield application
    await application.dispose()
    postgresql_factory.drop(url)


def plain(result: Any) -> list[Any]:
    """The rows, with a job's id in its place, and without the tuple around a single value."""

    def value(of: Row[Any]) -> Any:
        items = tuple(item.id if isinstance(item, Job) else item for item in of)
        return items if len(items) > 1 else items[0]

    return [value(each) for each in result] if getattr(result, "returns_rows", True) else []


def states(session: Session) -> list[str]:
    return list(session.scalars(select(cast(state, Text)).order_by(Job.id)))


async def test_reads_find_their_jobs_and_look_no_type_up(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    introspections = record_introspections(monkeypatch)
    async with app.session() as session:
        for statement, expected in READS:
            found = plain(await session.execute(statement))
            assert found == expected, statement
            assert introspections == [], statement
        for job in await session.run(lambda sync: list(sync.scalars(select(Job)))):
            assert type(job.state) is JobState


# SQLAlchemy 2.1 advises `select(…).distinct()` instead.
@pytest.mark.filterwarnings("ignore:Column-expression-level unary distinct")
async def test_what_is_compared_has_the_order_of_the_enum(app: Application) -> None:
    async with app.session() as session:
        for statement, expected in COMPARING:
            assert plain(await session.execute(statement)) == expected, statement


async def test_writes_store_states_and_look_no_type_up(
    app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    introspections = record_introspections(monkeypatch)
    for statement, parameters, expected, stored in WRITES:
        async with app.session() as session:
            await session.execute(text("SELECT setval('oban_jobs_id_seq', 6)"))
            assert sorted(plain(await session.execute(statement, parameters))) == sorted(expected), statement
            assert await session.run(states) == stored, statement
        assert introspections == [], statement


async def test_on_conflict_finds_an_index_by_the_state_of_its_jobs(app: Application) -> None:
    index = "CREATE UNIQUE INDEX ON oban_jobs (worker) WHERE state IN ('suspended', 'completed')"
    unique: Any = postgresql.insert(TABLE).on_conflict_do_nothing(
        index_elements=["worker"], index_where=state.in_(["suspended", "completed"])
    )
    equal: Any = postgresql.insert(Job).on_conflict_do_update(
        index_elements=["queue"], index_where=state == "suspended", set_={"priority": 3}
    )
    async with app.session() as session:
        await session.execute(text(index))
        await session.execute(text("CREATE UNIQUE INDEX ON oban_jobs (queue) WHERE state = 'suspended'"))
        for _ in range(2):
            await session.execute(unique.values(**new_state))
            await session.execute(equal.values(worker="other", state="suspended"))
        many = postgresql.insert(TABLE).on_conflict_do_nothing(
            index_elements=["queue"], index_where=state == "suspended"
        )
        await session.execute(many, [new_state, new_state])
        assert await session.run(states) == [*STATES, "suspended"]


async def test_a_unit_of_work_looks_no_type_up(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    introspections = record_introspections(monkeypatch)

    def work(session: Session) -> None:
        first, second = session.get_one(Job, 1), session.get_one(Job, 2)
        first.state = second.state = JobState.SUSPENDED
        new = Job(worker="w")
        new.state = JobState.RETRYABLE
        session.add(new)
        session.flush()
        session.refresh(first)
        session.expire(second)
        assert (first.state, second.state) == ("suspended", "suspended")
        third = session.get_one(Job, 3)
        third.state = JobState.CANCELLED
        session.commit()
        assert third.state == "cancelled"

    async with app.session() as session:
        await session.run(work)
        assert await session.run(states) == ["suspended", "suspended", "cancelled", *STATES[3:], "retryable"]
    assert introspections == []
