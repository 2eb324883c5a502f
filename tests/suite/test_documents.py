"""Whatever way a value takes into args or meta, the same values are stored, as the same JSON."""

import enum
import math
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import URL, insert, select, update
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, Record, Worker, job
from oban.errors import EncodingError
from tests.support.rows import delete_rows, lasting_url, read_rows


class Colour(enum.Enum):
    RED = "red"


class Size(enum.StrEnum):
    BIG = "big"


class Labelled(str, enum.Enum):  # noqa: UP042 - its value is another one than its text
    ONE = ("one", "first")

    def __new__(cls, text: str, label: str) -> "Labelled":
        member = str.__new__(cls, text)
        member._value_ = label
        return member


class Level(enum.IntEnum):
    HIGH = 3


class Name(str):
    __slots__ = ()


class Metres(float):
    pass


class Plain(Worker, name="tests.Plain"):
    async def process(self, job: Job) -> None: ...


@job(name="tests.function")
def function(a: Any) -> None: ...


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture(autouse=True)
async def emptied(oban: Oban) -> None:
    await delete_rows(oban.engine)


async def execute(oban: Oban, statement: Any, *parameters: Any) -> None:
    async with AsyncSession(oban.engine) as session:
        await session.execute(statement, *parameters)
        await session.commit()


async def add(oban: Oban, job: Job, bulk: bool = False) -> None:
    async with AsyncSession(oban.engine) as session:
        if bulk:
            await session.run_sync(lambda sync: sync.bulk_save_objects([job]))
        else:
            session.add(job)
        await session.commit()


async def add_and_change(oban: Oban, args: dict[str, Any]) -> None:
    async with AsyncSession(oban.engine) as session:
        session.add(stored := Plain.new())
        await session.flush()
        stored.args = args
        await session.commit()


def assigned(args: dict[str, Any]) -> Job:
    made = Plain.new()
    made.args = args
    return made


def mutated(args: dict[str, Any]) -> Job:
    made = Plain.new({"other": 1})
    made.args.clear()
    made.args.update(args)
    return made


async def update_all(oban: Oban, args: dict[str, Any]) -> None:
    await oban.enqueue(Plain.new())
    await execute(oban, update(Job).values(args=args))


async def update_job(oban: Oban, args: dict[str, Any]) -> None:
    await oban.update_job(await oban.enqueue(Plain.new()), {"args": args})


#: Each stores a job whose args are the dict.
WAYS: dict[str, Callable[[Oban, dict[str, Any]], Awaitable[Any]]] = {
    "Job": lambda oban, args: oban.enqueue(Job(worker="w", args=args)),
    "Worker.new": lambda oban, args: oban.enqueue(Plain.new(args)),
    "Worker.enqueue": lambda oban, args: Plain.enqueue(args),
    "@job": lambda oban, args: oban.enqueue(function.new(args["a"])),
    "assigned": lambda oban, args: oban.enqueue(assigned(args)),
    "mutated": lambda oban, args: oban.enqueue(mutated(args)),
    "mutated, of many": lambda oban, args: oban.enqueue_many([mutated(args), mutated({"a": None})]),
    "session.add": lambda oban, args: add(oban, Plain.new(args)),
    "session.add, mutated": lambda oban, args: add(oban, mutated(args)),
    "session.add, changed": add_and_change,
    "bulk_save_objects": lambda oban, args: add(oban, mutated(args), bulk=True),
    "insert": lambda oban, args: execute(oban, insert(Job).values(worker="w", args=args)),
    "insert, bulk": lambda oban, args: execute(oban, insert(Job), [{"worker": "w", "args": args}] * 2),
    "insert, table": lambda oban, args: execute(oban, insert(Job.__table__).values(worker="w", args=args)),
    "update": update_all,
    "update_job": update_job,
}
REFUSED: list[tuple[Any, str]] = [
    (uuid.uuid4(), "UUID; use str"),
    (Colour.RED, "Colour; use value.value"),
    (Decimal(1), "Decimal; use str"),
    ({1}, "set; use list"),
    (b"", "bytes; use value.decode"),
    (math.nan, "is nan"),
    (2**64, "more than 64 bits"),
    ("\x00", "NUL"),
    ({1: 2}, "key that is not a string"),
]
STORED: list[tuple[Any, Any]] = [
    (Size.BIG, "big"),
    (Labelled.ONE, "one"),
    (Level.HIGH, 3),
    (Name("n"), "n"),
    (Metres(1.5), 1.5),
    ((1, (2,)), [1, [2]]),
    (OrderedDict(b=Level.HIGH), {"b": 3}),
    (True, True),
    (None, None),
]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_not_json_is_refused_with_advice(oban: Oban, way: str) -> None:
    for value, problem in REFUSED:
        # In a statement, SQLAlchemy wraps the error.
        with pytest.raises((EncodingError, StatementError), match=rf'args\["a"\].*{problem}') as caught:
            await WAYS[way](oban, {"a": value})
        assert isinstance(getattr(caught.value, "orig", caught.value), EncodingError)
    assert [row["args"] for row in (await read_rows(oban.engine)).values() if row["args"]] == []


@pytest.mark.parametrize("way", WAYS)
async def test_an_instance_of_a_subclass_is_stored_as_the_plain_value(oban: Oban, way: str) -> None:
    await WAYS[way](oban, {"a": [value for value, _ in STORED]})
    stored = next(iter((await read_rows(oban.engine)).values()))["args"]["a"]
    plain = [plain for _, plain in STORED]
    assert stored == plain
    assert list(map(type, stored)) == list(map(type, plain))


async def test_the_same_values_are_refused_in_meta_and_recorded_values() -> None:
    for value, problem in REFUSED:
        for make, path in (
            (lambda value: Plain.new(meta={"a": value}), "meta"),
            (lambda value: setattr(Plain.new(), "meta", {"a": value}), "meta"),
            (lambda value: Record({"a": value}), "Record"),
        ):
            with pytest.raises(EncodingError, match=rf'^{path}\["a"\].*{problem}') as caught:
                make(value)
            assert "typed args" not in str(caught.value)


async def test_a_document_can_still_be_part_of_a_statement(oban: Oban) -> None:
    await oban.enqueue_many([Plain.new({"a": {"b": "c"}}), Plain.new({})])
    async with AsyncSession(oban.engine) as session:
        by_key = select(Job.args["a"]["b"].as_string()).where(Job.args["a"]["b"].as_string() == "c")
        assert (await session.scalars(by_key)).all() == ["c"]


# -- how a job is shown --------------------------------------------------------------------------


async def test_the_repr_of_a_job_has_its_id_without_a_query(oban: Oban) -> None:
    async with AsyncSession(oban.engine) as session:
        session.add(made := Plain.new())
        assert repr(made) == "Job(id=None, state=available, queue=default, worker=tests.Plain, attempt=0)"
        await session.commit()
        # Expired, and a query outside of a greenlet would fail.
        id_ = next(iter(await read_rows(oban.engine)))
        assert repr(made) == f"Job(id={id_})"
        await session.refresh(made, ["queue"])
        assert repr(made) == f"Job(id={id_}, queue=default)"
        session.expire(made)
        session.expunge(made)
    assert repr(made) == f"Job(id={id_})"
    assert repr(await oban.get_job(id_)).startswith(f"Job(id={id_}, state=available, queue=default")
