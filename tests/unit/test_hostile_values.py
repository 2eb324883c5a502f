"""Values that cannot be printed, or only at great length, are refused with a short and clear sentence."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from sqlalchemy.dialects import sqlite

from oban import Job, Oban, Record, Snooze, Worker, display, encoding, filters, job, worker
from oban.errors import InvalidJob, JobNotFound, ObanError
from oban.repository.selection import parse, parse_many
from oban.repository.update import check_changes

pytestmark = pytest.mark.usefixtures("own_registry")
SQLITE = "sqlite+aiosqlite://"


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


class Huge:
    def __repr__(self) -> str:
        return "x\n" * 1_000_000


class Named:
    """A class of which no instance has a length."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def deep() -> list[Any]:
    """A list that is nested more deeply than Python can recurse."""
    value: list[Any] = []
    for _ in range(20_000):
        value = [value]
    return value


def cyclic() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


VALUES: dict[str, Any] = {
    "deep": deep(),
    "cyclic dict": cyclic(),
    "cyclic list": [],
    "unprintable": Unprintable(),
    "huge": Huge(),
    "huge integer": 10**5000,
    "unprintable key": {Unprintable(): 1},
    "long key": {"k" * 1_000_000: Unprintable()},
    "long keys": {"k" * 1000: {"l" * 1000: {"m" * 1000: {1}}}},
}
VALUES["cyclic list"].append(VALUES["cyclic list"])


class Plain(Worker):
    async def process(self, job: Job) -> None:
        return None


def define(**options: Any) -> type[Worker]:
    cls: type[Worker] = type("Defined", (Worker,), {"process": Plain.process}, **options)
    return cls


def assign(value: Any) -> None:
    job = Plain.new()
    job.state = value


#: Calls that refuse every one of these values.
CALLS: dict[str, Callable[[Any], object]] = {
    "args": lambda value: Plain.new({"x": value}),
    "meta": lambda value: Plain.new(meta={"x": value}),
    "tags": lambda value: Plain.new(tags=[value]),
    "priority": lambda value: Plain.new(priority=value),
    "max_attempts": lambda value: Plain.new(max_attempts=value),
    "queue": lambda value: Plain.new(queue=value),
    "schedule_in": lambda value: Plain.new(schedule_in=value),
    "scheduled_at": lambda value: Plain.new(scheduled_at=value),
    "worker": lambda value: Job(worker=value),
    "state": assign,
    "changes": lambda value: check_changes({"tags": [value]}),
    "Snooze": lambda value: Snooze(1, meta={"x": value}),
    "Record": lambda value: Record([value]),
    # A huge integer could be an id.
    "target": lambda value: parse([cast(Any, [value])]),
    "targets": lambda value: parse_many([cast(Any, [value])], False, "cancel"),
    "filters.state": lambda value: filters.state(value),
    "filters.worker": lambda value: filters.worker(value),
    "filters.args": lambda value: filters.args("a") > value,
    "name": lambda value: Oban(SQLITE, name=value),
    "lease": lambda value: Oban(SQLITE, lease=value),
    "queues": lambda value: Oban(SQLITE, queues={"a": value}),
    "retention": lambda value: Oban(SQLITE, retention=value),
    "notifier": lambda value: Oban(SQLITE, notifier=value),
    "listen_url": lambda value: Oban(SQLITE, listen_url=value),
    "prefix": lambda value: Oban(SQLITE, prefix=value),
    "middleware": lambda value: Oban(SQLITE, middleware=[value]),
    "lifespan": lambda value: Oban(SQLITE, lifespan=value),
    "max_attempts of Oban": lambda value: Oban(SQLITE, max_attempts=value),
    "timeout": lambda value: define(timeout=value),
    "executor": lambda value: define(executor=value),
    "aliases": lambda value: define(aliases=value),
    "retry_on": lambda value: define(retry_on=value),
    "snooze_on": lambda value: define(snooze_on=value),
    "@job": lambda value: job(value),
    "@worker": lambda value: worker(value),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_value_that_cannot_be_shown_is_refused_all_the_same(call: Callable[[Any], object]) -> None:
    for name, value in VALUES.items():
        with pytest.raises(ObanError) as raised:
            call(value)
        assert len(str(raised.value)) < 700, name


def test_what_is_shown_is_one_short_line() -> None:
    assert display.shown("a") == "'a'"
    assert display.shown(Named("a\n  b\n")) == "a b"
    assert display.shown("x" * 300) == "'" + "x" * 199 + "…"
    assert display.shown(Unprintable()) == "<Unprintable that cannot be shown>"
    assert display.shown(10**5000) == "<int that cannot be shown>"
    assert display.shown(deep()) == "<list that is nested too deeply to be shown>"


def test_a_deep_value_in_a_statement_is_refused_with_a_message_that_can_be_printed() -> None:
    for value in (deep(), cyclic(), Unprintable()):
        processor = Job.__table__.c.args.type.bind_processor(sqlite.dialect())
        assert processor is not None
        with pytest.raises(InvalidJob, match=r"^args"):
            processor({"x": value})


def test_an_id_can_be_an_integer_of_any_size() -> None:
    assert str(JobNotFound([1, 10**5000])) == "no job has the id 1, <int that cannot be shown>"


def test_a_copy_of_json_can_be_nested_more_deeply_than_python_recurses() -> None:
    value: Any = {"a": [1, {"b": deep()}], "c": "text"}
    copy = encoding.copied(value)
    copy["a"][1]["b"].append(2)
    assert (len(value["a"][1]["b"]), copy["c"]) == (1, "text")
    for _ in range(20_000):
        copy = copy["a"][1]["b"] if isinstance(copy, dict) else copy[0]
        if not copy:
            break
    assert encoding.copied("text") == "text"
