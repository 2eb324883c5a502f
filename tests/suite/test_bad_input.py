"""Each kind of bad input raises its own error, which says what is wrong, and changes nothing."""

import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import URL, create_engine, func, inspect, select, text, union
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from oban import Job, Oban, ObanError, Worker
from oban.errors import InvalidJob, InvalidTarget, JobNotFound, NotEnqueued, SchemaMissing
from oban.models import Producer
from tests.support.bad_fields import BAD_FIELDS
from tests.support.databases import DATABASES, PostgreSQLFactory
from tests.support.rows import insert_rows, lasting_url, read_rows, row
from tests.support.statements import recorded

Bad = tuple[Any, type[Exception], str]


class Plain(Worker):
    """Accepts any args that can be stored."""

    async def process(self, job: Job) -> None: ...


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, as none of them may change it."""
    yield from lasting_url(request)


@pytest.fixture
async def unchanged(oban: Oban) -> AsyncIterator[list[int]]:
    """The ids of two rows. Checks after the test that the table has not changed."""
    ids = await insert_rows(oban.engine, row("scheduled"), row("retryable"))
    before = await read_rows(oban.engine)
    yield ids
    assert await read_rows(oban.engine) == before


# -- jobs and ids ------------------------------------------------------------------------------

NOT_A_TARGET: list[Bad] = [
    (True, InvalidTarget, "not True"),
    (False, InvalidTarget, "not False"),
    ("1", InvalidTarget, "not '1'"),
    (1.0, InvalidTarget, r"not 1\.0"),
    (None, InvalidTarget, "not None"),
    (b"1", InvalidTarget, "not b'1'"),
    (Decimal(1), InvalidTarget, "not Decimal"),
    (Job(worker="tests.New"), NotEnqueued, "was never enqueued"),
    (Producer(name="a"), InvalidTarget, "a Job or an integer id is needed"),
    (Plain, InvalidTarget, "a Job or an integer id is needed"),
]
NOT_TARGETS: list[Bad] = [
    *(([1, bad], error, message) for bad, error, message in NOT_A_TARGET),
    (1, InvalidTarget, "a list of jobs or ids.*not int"),
    ("12", InvalidTarget, "not str"),
    (b"12", InvalidTarget, "not bytes"),
    ({1: 2}, InvalidTarget, "not dict"),
    (None, InvalidTarget, "not NoneType"),
    (Job(worker="tests.New"), InvalidTarget, "not Job"),
    ([[1]], InvalidTarget, r"not \[1\]"),
    (select(Job.id), InvalidTarget, r"select\(Job\)"),
    (select(Job, Job.id), InvalidTarget, r"select\(Job\)"),
    (select(Job.queue, func.count()).group_by(Job.queue), InvalidTarget, r"select\(Job\)"),
    (select(Producer), InvalidTarget, r"select\(Job\)"),
    (select(func.count()).select_from(Job), InvalidTarget, r"select\(Job\)"),
    (select(text("1")), InvalidTarget, r"select\(Job\)"),
    (select(Job.__table__), InvalidTarget, r"select\(Job\)"),
    (text("SELECT * FROM oban_jobs"), InvalidTarget, "not TextClause"),
    (union(select(Job), select(Job)), InvalidTarget, "not CompoundSelect"),
    (Job, InvalidTarget, "a list of jobs or ids"),
]
CHANGE: dict[str, tuple[Any, ...]] = {"cancel": (), "retry": (), "delete": (), "update": ({"priority": 1},)}


@pytest.mark.parametrize("operation", CHANGE)
async def test_only_jobs_and_ids_are_accepted(oban: Oban, unchanged: list[int], operation: str) -> None:
    call = getattr(oban, f"{operation}_job")
    for bad, error, message in NOT_A_TARGET:
        with recorded(oban.engine) as statements, pytest.raises(error, match=message) as caught:
            await call(bad, *CHANGE[operation])
        assert isinstance(caught.value, ObanError)
        assert [sent for sent in statements if "oban_jobs" in sent] == []


@pytest.mark.parametrize("operation", CHANGE)
async def test_a_selection_must_name_jobs(oban: Oban, unchanged: list[int], operation: str) -> None:
    call = getattr(oban, f"{operation}_many_jobs")
    for bad, error, message in NOT_TARGETS:
        # The job with a valid id before the bad one must not change either.
        jobs = [unchanged[0], *bad[1:]] if isinstance(bad, list) and len(bad) > 1 else bad
        with recorded(oban.engine) as statements, pytest.raises(error, match=message) as caught:
            await call(jobs, *CHANGE[operation])
        assert isinstance(caught.value, ObanError)
        assert [sent for sent in statements if "oban_jobs" in sent] == []


@pytest.mark.parametrize("id_", [0, -1, 10**6, 2**63 - 1, 2**63, -(2**63), 10**30])
async def test_an_unknown_id_is_an_error_for_update_and_ignored_by_other_calls(
    oban: Oban, unchanged: list[int], id_: int
) -> None:
    with pytest.raises(JobNotFound, match=f"no job has the id {id_}$") as caught:
        await oban.update_job(id_, {"priority": 1})
    assert caught.value.ids == [id_]
    with pytest.raises(JobNotFound) as caught:
        await oban.update_many_jobs([unchanged[0], id_, unchanged[1], id_], lambda job: {"priority": 1})
    assert caught.value.ids == [id_]
    assert await oban.cancel_job(id_) is False
    assert await oban.retry_many_jobs([id_]) == 0
    assert await oban.delete_job(id_) is False
    assert await oban.get_job(id_) is None


async def test_bad_input_to_calls_that_read_is_refused(oban: Oban, unchanged: list[int]) -> None:
    loose: Any = oban
    for bad, error, message in NOT_A_TARGET:
        if error is InvalidTarget:
            with pytest.raises(error, match=message):
                await loose.get_job(bad)
    for bad, error, message in [item for item in NOT_TARGETS if not isinstance(item[0], (list, type(None)))]:
        with pytest.raises(error, match=message if "select" in message else "is needed"):
            await loose.list_jobs(bad)


async def test_a_job_that_was_deleted_is_unknown(oban: Oban) -> None:
    gone = await oban.enqueue(Plain.new())
    assert await oban.delete_job(gone)
    with pytest.raises(JobNotFound):
        await oban.update_job(gone, {"priority": 1})
    assert not await oban.cancel_job(gone)
    assert gone.id not in await read_rows(oban.engine)


# -- sessions ----------------------------------------------------------------------------------


async def test_a_session_of_another_kind_is_refused(
    oban: Oban, unchanged: list[int], url: URL, tmp_path: Path
) -> None:
    loose: Any = oban
    sync_engine = create_engine("sqlite://")
    other = "sqlite+aiosqlite" if url.get_backend_name() == "postgresql" else "postgresql+asyncpg"
    foreign = create_async_engine(URL.create(other, database=str(tmp_path / "x.db")))
    calls: list[Callable[[Any], Awaitable[Any]]] = [
        lambda session: loose.enqueue(Plain.new(), session=session),
        lambda session: loose.enqueue_many([Plain.new()], session=session),
        lambda session: loose.cancel_job(unchanged[0], session=session),
        lambda session: loose.delete_many_jobs(unchanged, session=session),
        lambda session: loose.update_job(unchanged[0], {"priority": 1}, session=session),
        lambda session: loose.get_job(unchanged[0], session=session),
        lambda session: loose.list_jobs(session=session),
    ]
    with Session(sync_engine) as sync_session:
        for bad in (sync_session, sync_engine, oban.engine, oban, "session", 0, False):
            for call in calls:
                with pytest.raises(InvalidTarget, match="must be an AsyncSession or AsyncConnection"):
                    await call(bad)
    async with AsyncSession(foreign) as session:
        for call in calls:
            with pytest.raises(InvalidTarget, match=f"not on {url.get_backend_name()}"):
                await call(session)
    sync_engine.dispose()
    await foreign.dispose()


# -- enqueueing --------------------------------------------------------------------------------

NOT_JOBS: list[tuple[Any, str]] = [
    (None, "a Job is needed, not NoneType"),
    ({"worker": "tests.New"}, "a Job is needed, not dict"),
    (Plain, "a Job is needed, not type"),
    (7, "a Job is needed, not int"),
    ("tests.New", "a Job is needed, not str"),
]


@pytest.mark.parametrize(("bad", "message"), NOT_JOBS)
async def test_a_value_that_is_not_a_job_is_refused(
    oban: Oban, unchanged: list[int], bad: Any, message: str
) -> None:
    with pytest.raises(InvalidTarget, match=message):
        await oban.enqueue(bad)
    with pytest.raises(InvalidTarget, match=message):
        await oban.enqueue_many([Plain.new(), bad])
    with pytest.raises(InvalidTarget, match=message):
        await oban.enqueue_many(Plain.new(), bad)


@pytest.mark.parametrize("bad", [None, 5, Plain])
async def test_only_iterables_of_jobs_are_enqueued(oban: Oban, unchanged: list[int], bad: Any) -> None:
    with pytest.raises(InvalidTarget, match="jobs are needed, not"):
        await oban.enqueue_many(bad)


async def test_a_job_is_enqueued_once(oban: Oban) -> None:
    made = await oban.enqueue(Plain.new())
    stored = await oban.get_job(made.id)
    assert stored is not None
    before = await read_rows(oban.engine)
    fresh = Plain.new()
    for again in (made, stored):
        with pytest.raises(InvalidTarget, match=f"job {made.id} was enqueued before; make a new one"):
            await oban.enqueue(again)
        with pytest.raises(InvalidTarget, match=f"job {made.id} was enqueued before"):
            await oban.enqueue_many([fresh, again])
    with pytest.raises(InvalidTarget, match="the same job was passed twice"):
        await oban.enqueue_many([fresh, Plain.new(), fresh])
    assert await read_rows(oban.engine) == before
    # The valid job in those lists has not changed.
    assert (await oban.enqueue(fresh)).id != made.id


SPOIL: dict[str, Callable[[Job], Any]] = {
    "NaN": lambda job: job.args.update(x=float("nan")),
    "NUL": lambda job: job.meta.update(x="a\x00"),
    "bytes": lambda job: job.args.update(x=b""),
    "key": lambda job: job.args.update({"a": {1: 2}}),
    "size": lambda job: job.meta.update(x="x" * 10_000_000),
    "tag": lambda job: job.tags.append("a\x00"),
    "number as a tag": lambda job: job.tags.append(7),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("how", SPOIL)
async def test_a_document_that_became_invalid_after_the_job_was_made_is_refused(
    oban: Oban, unchanged: list[int], how: str
) -> None:
    spoilt = Plain.new()
    SPOIL[how](spoilt)
    with pytest.raises(InvalidJob, match=r"^(args|meta|tags)"):
        await oban.enqueue(spoilt)
    with pytest.raises(InvalidJob, match=r"^(args|meta|tags)"):
        await oban.enqueue_many([Plain.new(), spoilt, Plain.new()])


@pytest.mark.parametrize("how", SPOIL)
async def test_a_session_does_not_flush_such_a_document_either(
    oban: Oban, unchanged: list[int], how: str
) -> None:
    async with AsyncSession(oban.engine) as session:
        spoilt = Plain.new()
        session.add_all([Plain.new(), spoilt])
        SPOIL[how](spoilt)
        with pytest.raises((InvalidJob, SQLAlchemyError)):
            await session.commit()


async def test_an_update_refuses_an_invalid_field(oban: Oban, unchanged: list[int]) -> None:
    for fields, message in BAD_FIELDS:
        with pytest.raises(InvalidJob, match=message):
            await oban.update_many_jobs(unchanged, fields)


# -- databases ---------------------------------------------------------------------------------


def assert_unchained(error: BaseException) -> None:
    """The traceback of the error shows no other error, such as the driver's."""
    shown = "".join(traceback.format_exception(error))
    assert shown.count("Traceback (most recent call last)") == 1, shown


async def test_a_database_without_the_tables(empty_url: URL) -> None:
    calls: list[Callable[[Oban], Awaitable[Any]]] = [
        lambda client: client.enqueue(Plain.new()),
        lambda client: client.enqueue_many([Plain.new()]),
        lambda client: client.get_job(1),
        lambda client: client.list_jobs(),
        lambda client: client.cancel_job(1),
        lambda client: client.retry_many_jobs(select(Job).where(Job.id == 1)),
        lambda client: client.delete_job(1),
        lambda client: client.update_job(1, {"priority": 1}),
        lambda client: Oban(client.engine, queues={"default": 1}).start(),
    ]
    url = empty_url
    if url.get_backend_name() == "postgresql":
        url = url.set(password="s3cret")
    async with Oban(url) as client:
        for call in calls:
            with pytest.raises(SchemaMissing, match="there are no Oban tables") as caught:
                await call(client)
            assert "oban install --database-url" in str(caught.value)
            assert str(url.database) in str(caught.value)
            assert isinstance(caught.value, ObanError)
            assert "s3cret" not in str(caught.value)
            assert_unchained(caught.value)
        async with AsyncSession(client.engine) as session:
            with pytest.raises(SchemaMissing) as caught:
                await client.enqueue(Plain.new(), session=session)
            assert_unchained(caught.value)
        async with client.engine.connect() as connection:
            assert await connection.run_sync(lambda sync: inspect(sync).get_table_names()) == []


async def test_a_schema_without_the_tables(postgresql_factory: PostgreSQLFactory) -> None:
    url = postgresql_factory.create()
    async with Oban(url, prefix="elsewhere") as client:
        with pytest.raises(SchemaMissing, match=r"in the schema elsewhere .*--prefix elsewhere"):
            await client.enqueue(Plain.new())
        assert await read_rows(client.engine) == {}
    postgresql_factory.drop(url)
