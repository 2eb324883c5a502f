"""Any `select(Job)` can name jobs, also one that joins the application's tables, and in any schema."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, ColumnElement, Select, exists, func, select, text, true, union
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import aliased, defer, load_only

from oban import Job, Oban, filters, migration
from oban.errors import InvalidTarget, SchemaMissing
from tests.suite.shop import Export, Order, create, link, order_jobs
from tests.support.databases import DATABASES, Factory
from tests.support.rows import delete_rows, insert_rows, read_rows, row

Other = aliased(Job)
ABOUT: ColumnElement[bool] = order_jobs.c.job_id == Job.id


def about() -> Select[Any]:
    return select(Job).join(order_jobs, ABOUT).join(Order, Order.id == order_jobs.c.order_id)


def numbered(statement: Select[Any], of: Any = Job) -> Select[Any]:
    return statement.order_by(of.id)


def of_customer(number: int) -> Select[Any]:
    return select(order_jobs.c.job_id).join(Order).where(Order.customer == number)


#: Statements, and which of the jobs of the fixture `ids` they name.
STATEMENTS: dict[str, tuple[Callable[[], Select[Any]], list[int]]] = {
    "everything": (lambda: select(Job), [0, 1, 2, 3, 4, 5]),
    "a join": (lambda: about().where(Order.customer == 7), [0, 1, 2]),
    "a join that doubles": (lambda: about().where(Order.customer.in_([7, 8])), [0, 1, 2, 3]),
    "an outer join": (
        lambda: select(Job).outerjoin(order_jobs, ABOUT).where(order_jobs.c.job_id.is_(None)),
        [4, 5],
    ),
    "an outer join that doubles": (
        lambda: select(Job).outerjoin(order_jobs, ABOUT).where(Job.priority < 3),
        [1, 2],
    ),
    "from the other side": (
        lambda: select(Job).select_from(Order).join(Order.jobs).where(Order.customer == 8),
        [1, 3],
    ),
    "no join but a condition": (lambda: select(Job).where(ABOUT, order_jobs.c.order_id == 2), [1, 3]),
    "distinct": (lambda: about().where(Order.customer > 0).distinct(), [0, 1, 2, 3]),
    "group by": (
        lambda: about().group_by(Job.id).having(func.count(Order.id) > 1),
        [1],
    ),
    "exists": (
        lambda: select(Job).where(exists().where(ABOUT, order_jobs.c.order_id == 1)),
        [0, 1],
    ),
    "not exists": (lambda: select(Job).where(~exists().where(ABOUT)), [4, 5]),
    "in a subquery": (lambda: select(Job).where(Job.id.in_(of_customer(7))), [0, 1, 2]),
    "a cte": (
        lambda: (lambda named: select(Job).join(named, named.c.job_id == Job.id))(
            of_customer(8).cte("versions")
        ),
        [1, 3],
    ),
    "a cte on jobs": (
        lambda: (lambda some: select(Job).where(Job.id.in_(select(some.c.id))))(
            select(Job.id).where(Job.queue == "media").cte("some")
        ),
        [3, 4],
    ),
    "a cte that is only added": (
        lambda: (lambda some: select(Job).where(Job.id.in_(select(some.c.id))).add_cte(some))(
            select(Job.id).where(Job.queue == "media").cte("some")
        ),
        [3, 4],
    ),
    "a limit": (lambda: about().where(Order.customer == 7).order_by(Job.id.desc()).limit(2), [2, 1]),
    "a limit and an offset": (lambda: numbered(select(Job)).limit(2).offset(1), [1, 2]),
    "a nested limit": (
        lambda: select(Job).where(Job.id.in_(select(Other.id).order_by(Other.id.desc()).limit(2))),
        [4, 5],
    ),
    "an alias": (lambda: select(Other).where(Other.queue == "media"), [3, 4]),
    "an alias that is joined": (
        lambda: (
            select(Other).join(order_jobs, order_jobs.c.job_id == Other.id).where(order_jobs.c.order_id == 1)
        ),
        [0, 1],
    ),
    "beside itself": (
        lambda: (
            select(Job)
            .join(Other, (Other.queue == Job.queue) & (Other.id < Job.id))
            .where(Job.queue == "media")
        ),
        [4],
    ),
    "an alias of a subquery": (
        lambda: select(aliased(Job, select(Job).where(Job.queue == "media").subquery())),
        [3, 4],
    ),
    "an alias of a union": (
        lambda: select(
            aliased(
                Job,
                union(
                    select(Job.__table__).where(Job.priority < 2),
                    select(Job.__table__).where(Job.priority == 2),
                ).subquery(),
            )
        ),
        [1, 2],
    ),
    "a union of ids": (
        lambda: select(Job).where(Job.id.in_(union(of_customer(8), select(Job.id).where(Job.priority == 2)))),
        [1, 2, 3],
    ),
    "only some columns": (lambda: select(Job).options(load_only(Job.queue)).where(Job.priority < 3), [1, 2]),
    "all but some columns": (lambda: select(Job).options(defer(Job.args)).where(Job.priority < 3), [1, 2]),
    "a lock": (lambda: select(Job).where(Job.queue == "media").with_for_update(), [3, 4]),
    "a lock that skips": (
        lambda: numbered(select(Job)).limit(2).with_for_update(skip_locked=True),
        [0, 1],
    ),
    "filters": (
        lambda: about().where(filters.queue("default"), filters.args("n") == Order.id, Order.customer == 7),
        [0, 2],
    ),
}


#: Those that cannot be read in pages.
LIMITED = ("a limit", "a limit and an offset", "a lock that skips", "group by")


@pytest.fixture(scope="module", params=[*DATABASES, "prefix"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[URL, str | None]]:
    """A database and a prefix. With a prefix, the schema of the application also has Oban's tables."""
    prefix = "jobs" if request.param == "prefix" else None
    factory: Factory = request.getfixturevalue(f"{'asyncpg' if prefix else request.param}_factory")
    made = factory.create()
    if prefix:
        migration.upgrade(made, prefix=prefix)
    yield made, prefix
    factory.drop(made)


@pytest.fixture
async def oban(place: tuple[URL, str | None]) -> AsyncIterator[Oban]:
    """A client, in a database that also has the application's tables."""
    url, prefix = place
    async with Oban(url, prefix=prefix) as client:
        for engine in (client.engine, tables(client)):
            await delete_rows(engine)
        await create(client.engine, f"{prefix}.oban_jobs" if prefix else "oban_jobs")
        if prefix:
            # The tables that no call may use.
            await insert_rows(client.engine, *[row("retryable", id=number + 1) for number in range(6)])
        yield client


def tables(oban: Oban) -> AsyncEngine:
    """An engine that finds Oban's tables in the client's schema."""
    return oban.engine.execution_options(schema_translate_map={None: oban.options.prefix})


@pytest.fixture
async def ids(oban: Oban) -> list[int]:
    """Six jobs, some linked to orders: the second job is linked to two, of the customers 7 and 8."""
    rows = [row("retryable", args={"n": number + 1}) for number in range(6)]
    rows[1]["priority"], rows[2]["priority"] = 1, 2
    rows[3]["queue"] = rows[4]["queue"] = "media"
    ids = await insert_rows(tables(oban), *rows)
    orders = [{"id": 1, "customer": 7}, {"id": 2, "customer": 8}, {"id": 3, "customer": 7}]
    links = [(1, 0), (1, 1), (2, 1), (2, 3), (3, 2)]
    await link(oban.engine, orders, [(order, ids[job]) for order, job in links])
    return ids


@pytest.mark.parametrize("name", STATEMENTS)
async def test_each_statement_names_its_jobs(oban: Oban, ids: list[int], name: str) -> None:
    make, places = STATEMENTS[name]
    if name == "group by" and oban.options.prefix:
        with pytest.raises(ProgrammingError, match="must appear in the GROUP BY clause"):
            await oban.list_jobs(make())
        return
    named = [ids[place] for place in places]
    assert sorted(job.id for job in await oban.list_jobs(make())) == sorted(named)
    if name in LIMITED:
        with pytest.raises(InvalidTarget, match=r"cannot be read in pages|another one"):
            await oban.list_jobs(make(), after=0)
        with pytest.raises(InvalidTarget, match=r"cannot be read in pages|another one"):
            oban.iterate_jobs(make())
    else:
        assert [job.id async for job in oban.iterate_jobs(make(), batch=2)] == sorted(named)
        assert [job.id for job in await oban.list_jobs(make(), after=named[0])] == sorted(named)[1:]
    everything = name == "everything"
    assert await oban.cancel_many_jobs(make(), everything=everything) == len(named)
    updated = await oban.update_many_jobs(make(), {"meta": {"by": "hand"}}, everything=everything)
    assert [job.id for job in updated] == sorted(named)
    assert await oban.retry_many_jobs(make(), everything=everything) == len(named)
    rows = await read_rows(tables(oban))
    changed = [id_ for id_, found in rows.items() if found["state"] == "available" and found["meta"]]
    assert changed == sorted(named)
    async with AsyncSession(oban.engine) as session:
        assert await oban.delete_many_jobs(make(), session, everything=everything) == len(named)
        assert len(await oban.list_jobs(session=session)) == 6 - len(named)
    assert len(await read_rows(oban.engine)) == 6
    if oban.options.prefix:
        assert {found["state"] for found in (await read_rows(oban.engine)).values()} == {"retryable"}


async def test_waiting_looks_at_the_tables_of_the_client(oban: Oban, ids: list[int]) -> None:
    with pytest.raises(TimeoutError):
        await oban.wait(ids[0], timeout=0)
    await oban.cancel_job(ids[0])
    assert (await oban.wait(ids[0], timeout=0)).state == "cancelled"
    await oban.wait_until_empty(timeout=0)
    await oban.retry_job(ids[0])
    with pytest.raises(TimeoutError):
        await oban.wait_until_empty(timeout=0)


async def test_a_statement_can_join_related_objects(oban: Oban, ids: list[int]) -> None:
    async with AsyncSession(oban.engine) as session:
        session.add(Export(id=1, job_id=ids[0]))
        await session.flush()
        statement = select(Job).join(Export, Export.job_id == Job.id)
        (job,) = await oban.list_jobs(statement, session=session)
        assert (await session.get_one(Export, 1)).job_id == job.id


UNFILTERED: dict[str, Callable[[], Select[Any]]] = {
    "nothing": lambda: select(Job),
    "an order": lambda: select(Job).order_by(Job.priority),
    "true": lambda: select(Job).where(true()),
    "options": lambda: select(Job).options(load_only(Job.id)),
    "distinct": lambda: select(Job).distinct(),
    "an alias": lambda: select(Other),
    "an outer join": lambda: select(Job).outerjoin(order_jobs, ABOUT),
    "two outer joins": lambda: select(Job).outerjoin(order_jobs, ABOUT).outerjoin(Order, true()),
    "a lock": lambda: select(Job).with_for_update(),
}


#: The calls that need a confirmation, as functions of the client, the jobs and `everything`.
MANY: dict[str, Callable[..., Any]] = {
    "cancel": lambda oban, jobs, **options: oban.cancel_many_jobs(jobs, **options),
    "retry": lambda oban, jobs, **options: oban.retry_many_jobs(jobs, **options),
    "update": lambda oban, jobs, **options: oban.update_many_jobs(jobs, {"priority": 9}, **options),
    "delete": lambda oban, jobs, **options: oban.delete_many_jobs(jobs, **options),
}


@pytest.mark.parametrize("name", UNFILTERED)
async def test_a_statement_without_a_condition_is_refused_unless_it_is_confirmed(
    oban: Oban, ids: list[int], name: str
) -> None:
    before = await read_rows(tables(oban))
    for verb, call in MANY.items():
        with pytest.raises(InvalidTarget, match=rf"it would {verb} every job\. .* pass everything=True"):
            await call(oban, UNFILTERED[name]())
    assert await read_rows(tables(oban)) == before
    for call in MANY.values():
        changed = await call(oban, UNFILTERED[name](), everything=True)
        assert (len(changed) if isinstance(changed, list) else changed) == 6


@pytest.mark.parametrize("verb", MANY)
async def test_the_confirmation_is_refused_without_a_statement(oban: Oban, ids: list[int], verb: str) -> None:
    with pytest.raises(InvalidTarget, match=r"goes with a select\(Job\)"):
        await MANY[verb](oban, ids, everything=True)
    changed = await MANY[verb](oban, select(Job).where(Job.id == ids[0]), everything=True)
    assert (len(changed) if isinstance(changed, list) else changed) == 1


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two entities": (lambda: select(Job, Order).join(Job, true()), r"select\(Job\)\.join\(Order"),
    "another": (lambda: select(Order), "of Job and nothing else"),
    "a column": (lambda: select(Job.id), "of Job and nothing else"),
    "more": (lambda: select(Job, func.now()), "of Job and nothing else"),
    "a union": (lambda: union(select(Job), select(Job)), "not CompoundSelect; use"),
    "text": (lambda: text("SELECT 1"), "not TextClause"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_statement_that_returns_no_jobs_is_refused(oban: Oban, ids: list[int], name: str) -> None:
    make, message = REFUSED[name]
    for call in (oban.cancel_many_jobs, oban.retry_many_jobs, oban.delete_many_jobs):
        with pytest.raises(InvalidTarget, match=message):
            await call(make())
    with pytest.raises(InvalidTarget, match=message):
        await oban.update_many_jobs(make(), {"priority": 1})
    with pytest.raises(InvalidTarget):
        await oban.list_jobs(make())


async def test_a_session_with_a_third_schema_is_refused(oban: Oban) -> None:
    tenant = oban.engine.execution_options(schema_translate_map={None: "tenant"})
    async with AsyncSession(tenant) as session:
        if oban.options.prefix:
            with pytest.raises(InvalidTarget, match=r"tables without a schema to 'tenant'.* in 'jobs'"):
                await oban.list_jobs(session=session)
        else:
            with pytest.raises((SchemaMissing, OperationalError)):
                await oban.list_jobs(session=session)


async def test_skip_locked_in_a_statement_skips_rows_that_are_locked(oban: Oban, ids: list[int]) -> None:
    if oban.engine.dialect.name == "sqlite":
        # A writer locks the whole database; SQLAlchemy omits the clause.
        assert "FOR UPDATE" not in str(select(Job).with_for_update().compile(oban.engine.sync_engine))
        return
    first = select(Job).order_by(Job.id).limit(2).with_for_update(skip_locked=True)
    async with AsyncSession(oban.engine) as session:
        assert [job.id for job in await oban.list_jobs(first, session=session)] == ids[:2]
        assert [job.id for job in await oban.update_many_jobs(first, {"priority": 9})] == ids[2:4]
