"""Each condition of `oban.filters` finds the right jobs, and the same ones on every database."""

import dataclasses
import enum
import operator
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field
from sqlalchemy import URL, func, select, text
from sqlalchemy.orm import aliased

from oban import Job, JobState, Oban, Worker, filters, job
from oban.errors import EncodingError, InvalidArgument, InvalidJob
from tests.support.databases import PostgreSQLFactory
from tests.support.rows import delete_rows, insert_rows, lasting_url, row

#: Keys that have a meaning in some path language, or cannot be written in one.
KEYS = ["a", "a.b", 'a"b', "a'b", "$", "[0]", "0", "", "*", "ä\U0001f4a9", "a\\b", "\n", "%s", ":x", "{a}"]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -7, 7, 1.0, 7.5, 2**53 + 1, 2**63 - 1, -(2**63), 1e300),
    *("", "7", "true", "null", "a", "B", "b", "ä", "'; --", 'x"y', "\\", "\n", "100%", "Z" * 300),
    *([], [7], [1, True], [7, "a", None], [[7]], ["7"], [{"a": 7}], [7, [8, {"b": None}]]),
    *({}, {"a": 7}, {"a": 7, "b": 1}, {"b": 1, "a": 7.0}, {"a": {"a": [7]}}, {"0": 7}, {"a": [7, 8]}),
]
ORDERED = [value for value in VALUES if isinstance(value, (int, float, str)) and not isinstance(value, bool)]
NOTHING = object()


class Mail(Worker, name="tests.Mail"):
    async def process(self, job: Job) -> None: ...


@job(name="tests.send")
def send(to: str) -> None: ...


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


def at(document: Any, *path: str | int) -> Any:
    """The value at the path, or `NOTHING`."""
    for key in path:
        if isinstance(document, dict) and isinstance(key, str):
            document = document.get(key, NOTHING)
        elif isinstance(document, list) and isinstance(key, int) and key < len(document):
            document = document[key]
        else:
            return NOTHING
    return document


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, where booleans are not numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) is isinstance(other, bool) and one == other


def ordered(compare: Callable[[Any, Any], bool], one: Any, other: Any) -> bool:
    number = all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in (one, other))
    return (number or (isinstance(one, str) and isinstance(other, str))) and compare(one, other)


async def documents(oban: Oban, *held: dict[str, Any]) -> dict[int, dict[str, Any]]:
    ids = await insert_rows(oban.engine, *[row(args=item, meta=item) for item in held])
    return dict(zip(ids, held, strict=True))


async def found(oban: Oban, *conditions: Any) -> list[int]:
    async with oban.engine.connect() as connection:
        statement = select(Job.id).where(*conditions).order_by(Job.id)
        return list((await connection.execute(statement)).scalars())


async def test_a_value_is_found_by_its_type_and_value(oban: Oban) -> None:
    stored = await documents(
        oban, {}, *({"a": value} for value in VALUES), *({"a": {"b": v}} for v in VALUES)
    )
    for path in (("a",), ("a", "b"), ("a", 0), ("a", 1, 1, "b"), ("b",)):
        value = filters.args(*path)
        there = {id_: at(document, *path) for id_, document in stored.items()}
        for wanted in VALUES:
            equal = [id_ for id_, held in there.items() if held is not NOTHING and same(held, wanted)]
            assert await found(oban, value == wanted) == equal, (path, wanted)
        assert await found(oban, value.exists()) == [
            id_ for id_, held in there.items() if held is not NOTHING
        ]


async def test_the_negation_finds_all_other_jobs(oban: Oban) -> None:
    stored = await documents(oban, {}, {"a": None}, {"a": 7}, {"a": "7"}, {"a": [7]}, {"b": 7})
    value = filters.meta("a")
    for condition in (
        value == 7,
        value == [7],
        value > 6,
        value.exists(),
        value.contains(7),
        value.in_([7, "7"]),
    ):
        these = await found(oban, condition)
        assert these
        assert await found(oban, ~condition) == [id_ for id_ in stored if id_ not in these]
    assert await found(oban, value != 7) == await found(oban, ~(value == 7))
    assert await found(oban, value.not_in([7, "7"])) == await found(oban, value != 7, value != "7")
    assert await found(oban, value.in_([])) == []
    assert await found(oban, value.not_in([])) == list(stored)


@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge])
async def test_numbers_are_compared_with_numbers_and_strings_with_strings(
    oban: Oban, compare: Callable[[Any, Any], Any]
) -> None:
    stored = await documents(oban, {}, *({"a": {"b": [value]}} for value in VALUES))
    for wanted in ORDERED:
        expected = [id_ for id_, held in stored.items() if ordered(compare, at(held, "a", "b", 0), wanted)]
        assert await found(oban, compare(filters.args("a", "b", 0), wanted)) == expected, wanted


async def test_a_list_contains_a_value_of_the_same_type(oban: Oban) -> None:
    stored = await documents(oban, {}, *({"a": value} for value in VALUES), *({"a": [v]} for v in VALUES))
    for path in (("a",), ("a", 0)):
        for wanted in VALUES:
            if isinstance(wanted, (dict, list)):
                continue
            expected = [
                id_
                for id_, held in stored.items()
                if isinstance(listed := at(held, *path), list) and any(same(item, wanted) for item in listed)
            ]
            assert await found(oban, filters.args(*path).contains(wanted)) == expected, (path, wanted)


async def test_a_key_can_be_any_string(oban: Oban) -> None:
    stored = await documents(oban, *({key: {key: [key]}} for key in KEYS))
    for key, id_ in zip(KEYS, stored, strict=True):
        value = filters.args(key, key)
        for condition in (
            value == [key],
            value.exists(),
            value.contains(key),
            filters.args(key, key, 0) >= key,
        ):
            assert await found(oban, condition) == [id_], key


async def test_a_value_can_be_selected_and_ordered_by(oban: Oban) -> None:
    await documents(
        oban, {"a": {"n": 9}}, {"a": {"n": 10}}, {"a": {"n": "x"}}, {"a": {"n": 1.5}}, {"a": 3}, {}
    )
    number, name = filters.args("a", "n").as_integer(), filters.args("a", "n").as_text()
    async with oban.engine.connect() as connection:
        rows = (await connection.execute(select(number, name).select_from(Job).order_by(Job.id))).all()
    assert [tuple(row) for row in rows] == [
        *((9, None), (10, None), (None, "x"), (None, None), (None, None), (None, None))
    ]
    listed = await oban.list_jobs(select(Job).where(number.is_not(None)).order_by(number.desc()))
    assert [job.args["a"]["n"] for job in listed] == [10, 9]


async def test_filters_on_plain_columns(oban: Oban) -> None:
    ids = await insert_rows(
        oban.engine,
        row("retryable", worker="tests.Mail", queue="media", tags=["eu", "vip"]),
        row("completed", worker="tests.send", tags=["vip"]),
        row("scheduled", worker="Other.App", tags=[]),
    )
    expected: dict[Any, list[int]] = {
        filters.worker(Mail): [0],
        filters.worker(send): [1],
        filters.worker(Mail, send.with_options(queue="slow")): [0, 1],
        filters.worker("Other.App"): [2],
        filters.queue("media"): [0],
        filters.queue("media", "default"): [0, 1, 2],
        filters.state("completed"): [1],
        filters.state(JobState.RETRYABLE, "scheduled"): [0, 2],
        filters.tags("vip"): [0, 1],
        filters.tags(" VIP ", "eu"): [0],
        filters.tags("v"): [],
        ~filters.tags("vip"): [2],
        filters.any_tag("eu", "us"): [0],
        filters.any_tag("eu", "Vip"): [0, 1],
        ~filters.any_tag("eu"): [1, 2],
        filters.tags("eu") | filters.state("completed"): [0, 1],
    }
    for condition, places in expected.items():
        assert await found(oban, condition) == [ids[place] for place in places], str(condition)


async def test_every_filter_works_with_an_alias_a_count_and_an_update(oban: Oban) -> None:
    (id_, _) = await insert_rows(
        oban.engine,
        row("retryable", worker="tests.Mail", queue="media", tags=["vip"], args={"a": {"b": [7]}}),
        row("retryable"),
    )
    other = aliased(Job)
    for of in (Job, other):
        all_of_them = [
            filters.worker(Mail, of=of),
            filters.queue("media", of=of),
            filters.state("retryable", of=of),
            filters.tags("vip", of=of),
            filters.any_tag("vip", of=of),
            filters.args("a", of=of) == {"b": [7]},
            filters.args("a", "b", 0, of=of) < 8,
            filters.args("a", "b", of=of).contains(7),
            filters.meta("a", of=of).exists() == False,  # noqa: E712 - an SQL expression
            filters.args("a", "b", 0, of=of).as_integer() == 7,
        ]
        assert await oban.cancel_many_jobs(select(of).where(*all_of_them)) == 1
        assert await oban.retry_many_jobs(select(of).where(*all_of_them[:2], *all_of_them[3:])) == 1
        async with oban.engine.begin() as connection:
            await connection.execute(Job.__table__.update().values(state="retryable"))
            for condition in all_of_them:
                statement = select(func.count()).where(condition)
                assert await connection.scalar(statement) in (1, 2)
    assert await oban.delete_many_jobs(select(other).where(filters.args("a", "b", of=other).exists())) == 1
    assert await oban.get_job(id_) is None


@pytest.mark.parametrize("spoilt", ["no json", "[1]", "null", '"a"', "7"])
async def test_a_corrupt_row_on_sqlite_matches_nothing_and_stops_no_query(oban: Oban, spoilt: str) -> None:
    (good, bad) = await insert_rows(oban.engine, *[row(args={"a": 1}, tags=["b"])] * 2)
    if oban.engine.dialect.name == "postgresql":
        if spoilt == "no json":
            return
        change = "UPDATE oban_jobs SET args = CAST(:spoilt AS jsonb) WHERE id = :id"
    else:
        change = "UPDATE oban_jobs SET args = :spoilt, tags = :spoilt WHERE id = :id"
    async with oban.engine.begin() as connection:
        await connection.execute(text(change), {"spoilt": spoilt, "id": bad})
    value = filters.args("a")
    for condition in (value == 1, value < 2, value.exists(), filters.args("a").as_integer() == 1):
        assert await found(oban, condition) == [good]
    assert await found(oban, value.contains(1) | (value == [1])) == []
    assert good in await found(oban, filters.tags("b"))


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Address:
    city: str
    since: date


ID, PATH = uuid.UUID(int=7), Path("a/b")


class Line(BaseModel):
    number: int = Field(alias="lineNumber")
    price: Decimal


@dataclass
class Order:
    """Has a field of each type that typed args convert."""

    id: uuid.UUID = ID
    day: date = date(2026, 1, 31)
    at: datetime = datetime(2026, 1, 31, 12, 30, 0, 5, tzinfo=UTC)
    local: datetime = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=2)))
    clock: time = time(12, 30)
    length: timedelta = timedelta(hours=1, seconds=2.5)
    price: Decimal = Decimal("9.90")
    colour: Colour = Colour.RED
    data: bytes = b"abc"
    path: Path = PATH
    names: frozenset[str] = frozenset({"a"})
    address: Address = dataclasses.field(default_factory=lambda: Address("Rome", date(2025, 1, 1)))
    lines: list[Line] = dataclasses.field(default_factory=lambda: [Line(lineNumber=1, price=Decimal(3))])
    by_number: dict[int, uuid.UUID] = dataclasses.field(default_factory=lambda: {1: uuid.UUID(int=1)})


class Ship(Worker[Order], name="tests.Ship"):
    async def process(self, job: Job, args: Order) -> None: ...


async def test_a_value_is_compared_as_typed_args_store_it(oban: Oban) -> None:
    order = Order()
    wanted = (await oban.enqueue(Ship.new(order))).id
    await oban.enqueue(Mail.new(dict.fromkeys(field.name for field in dataclasses.fields(Order))))
    for field in dataclasses.fields(Order):
        value = getattr(order, field.name)
        assert await found(oban, filters.args(field.name) == value) == [wanted], field.name
        assert await found(oban, filters.args(field.name).in_([value, 1])) == [wanted], field.name
    assert await found(oban, filters.args("names").contains("a")) == [wanted]
    assert await found(oban, filters.args("lines").contains(order.id)) == []
    assert await found(oban, filters.args("by_number", "1") == uuid.UUID(int=1)) == [wanted]
    assert await found(oban, filters.args("day") >= date(2026, 1, 31)) == [wanted]
    assert await found(oban, filters.args("day") < date(2026, 1, 31)) == []
    assert await found(oban, filters.args("id") != order.id) != [wanted]


async def test_a_list_contains_a_converted_item(oban: Oban) -> None:
    ids = [uuid.uuid4(), uuid.uuid4()]
    stored = await documents(oban, {"ids": [str(ids[0])]}, {"ids": list(map(str, ids))})
    assert await found(oban, filters.args("ids").contains(ids[0])) == list(stored)
    assert await found(oban, filters.args("ids") == ids) == list(stored)[1:]


#: Conditions that are refused before any statement, and the error messages.
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: filters.worker(), InvalidArgument, "at least a worker is needed"),
    (lambda: filters.worker(Worker), InvalidArgument, "one of its subclasses"),
    (lambda: filters.worker(int), InvalidArgument, "class, its @job function or its name"),  # type: ignore[arg-type]
    (lambda: filters.worker(" "), InvalidJob, "worker must not be blank"),
    (lambda: filters.queue("a b"), InvalidJob, "not a queue name"),
    (lambda: filters.queue(), InvalidArgument, "at least a queue"),
    (lambda: filters.state("complete"), InvalidArgument, "did you mean completed"),
    (lambda: filters.state(), InvalidArgument, "at least a state"),
    (lambda: filters.tags(), InvalidArgument, "at least a tag"),
    (lambda: filters.tags(" "), InvalidArgument, "not blank"),
    (lambda: filters.any_tag(7), InvalidJob, "must be strings"),  # type: ignore[arg-type]
    (lambda: filters.args(), InvalidArgument, "needs a key"),
    (lambda: filters.args(0), InvalidArgument, "needs a key"),
    (lambda: filters.args("a", -1), InvalidArgument, "from 0"),
    (lambda: filters.args("a", True), InvalidArgument, "is neither"),
    (lambda: filters.args("a", None), InvalidArgument, "is neither"),  # type: ignore[arg-type]
    (lambda: filters.args({"id": 7}), InvalidArgument, r"as in filters.args\('id'\) == 7"),  # type: ignore[arg-type]
    (lambda: filters.args("a\0"), EncodingError, "NUL"),
    (lambda: filters.args("a") == object(), EncodingError, r"^args\['a'\] is not JSON: object"),
    (lambda: filters.args("a") == b"\xff", EncodingError, r"^args\['a'\] is not JSON: bytes"),
    (lambda: filters.args("a") == {"b": uuid.uuid4(), "c": float("nan")}, EncodingError, r"\[\"c\"\] is nan"),
    (lambda: filters.args("a") < datetime.now(UTC), InvalidArgument, "a number, a string or a date, not by"),
    (lambda: filters.args("a") < Decimal(1), InvalidArgument, "a number, a string or a date, not by"),  # type: ignore[operator]
    (lambda: filters.args("a").contains(Address("x", date(2026, 1, 1))), InvalidArgument, "contains needs"),
    (lambda: filters.args("a", 0) == float("nan"), EncodingError, r"args\['a'\]\[0\] is nan"),
    (lambda: filters.args("a") == 2**80 + 1, EncodingError, "64 bits"),
    (lambda: filters.args("a") == filters.meta("a"), InvalidArgument, "another value"),
    (lambda: filters.args("a") == Job.inserted_at, InvalidArgument, "integers, strings or UUIDs"),
    (lambda: filters.args("a") < None, InvalidArgument, "a date, not by None"),  # type: ignore[operator]
    (lambda: filters.args("a") >= True, InvalidArgument, "a date, not by True"),
    (lambda: filters.args("a") < [1], InvalidArgument, "a number, a string or a date"),  # type: ignore[operator]
    (lambda: filters.args("a").contains([1]), InvalidArgument, "contains needs"),
    (lambda: filters.args("a").in_("abc"), InvalidArgument, "a list of values"),
    (lambda: bool(filters.args("a")), InvalidArgument, "is not a condition"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_a_meaningless_condition_is_refused(number: int) -> None:
    call, error, message = REFUSED[number]
    with pytest.raises(error, match=message):
        call()


async def test_a_gin_index_serves_equality_and_lists_on_postgresql(
    postgresql_factory: PostgreSQLFactory,
) -> None:
    url = postgresql_factory.create()
    async with Oban(url) as oban, oban.engine.begin() as connection:
        await connection.execute(text("CREATE INDEX args_gin ON oban_jobs USING gin (args jsonb_path_ops)"))
        await connection.execute(text("CREATE INDEX tags_gin ON oban_jobs USING gin (tags)"))
        await connection.execute(text("SET LOCAL enable_seqscan = off"))
        # A generic plan, as a driver gets after some executions.
        await connection.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        for condition, index in (
            (filters.args("customer", "id") == 7, "args_gin"),
            (filters.args("customer") == {"id": 7}, "args_gin"),
            (filters.args("ids").contains(7), "args_gin"),
            (filters.args("id").in_([7, 8]), "args_gin"),
            (filters.tags("vip", "eu"), "tags_gin"),
            (filters.any_tag("vip", "eu"), "tags_gin"),
        ):
            statement = select(Job.id).where(condition)
            compiled = statement.compile(oban.engine.sync_engine, compile_kwargs={"render_postcompile": True})
            plan = await connection.exec_driver_sql(f"EXPLAIN {compiled}", tuple(compiled.params.values()))
            assert index in str(plan.all()), str(compiled)
    postgresql_factory.drop(url)
