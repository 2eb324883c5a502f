"""What an assertion about enqueued jobs says when it fails. It is the same on every database."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, StaticPool, create_engine, insert

from oban import Job, JobState, SyncOban, Worker, clock, migration
from oban.testing import assert_enqueued, refute_enqueued, rolled_back
from tests.support.rows import row

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Confirm(Worker, name="tests.messages.Confirm"):
    async def process(self, job: Job) -> None: ...


class Remind(Worker, name="tests.messages.Remind"):
    async def process(self, job: Job) -> None: ...


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = create_engine("sqlite://")
    migration.upgrade(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with rolled_back(engine) as connection:
        yield connection


@pytest.fixture
def oban(connection: Connection) -> Iterator[SyncOban]:
    with clock.use(clock.MovableClock(NOON)):
        yield SyncOban(connection, name="shop")


def message(oban: SyncOban, **filters: Any) -> str:
    """The message of an assertion that no job fulfills."""
    with pytest.raises(AssertionError) as caught:
        assert_enqueued(oban=oban, **filters)
    return str(caught.value)


def listed(oban: SyncOban, **filters: Any) -> list[str]:
    """What that message says about jobs, line by line."""
    text = message(oban, **filters)
    return [line.strip() for line in text.partition("nearest match first")[2].splitlines()[2:]]


def nearest(oban: SyncOban, **filters: Any) -> list[int]:
    """The ids of the jobs in that message, in its order."""
    return [int(line.split()[1]) for line in listed(oban, **filters) if line.startswith("job ")]


def test_the_message_says_what_was_wanted_where_it_was_looked_for_and_what_is_there(oban: SyncOban) -> None:
    oban.enqueue(Confirm.new({"order": 7, "lang": "en"}, queue="mailers", meta={"by": "ada"}))
    oban.enqueue(Remind.new({"order": 8}, tags=["vip"]))
    assert message(oban, worker=Confirm, args={"order": 8}, queue=["mailers", "media"]) == (
        "no enqueued job matches\n"
        "  worker: 'tests.messages.Confirm'\n"
        "  args: {'order': 8}\n"
        "  queue: 'mailers' or 'media'\n"
        "  state: available, scheduled or suspended\n"
        "\n"
        "The SyncOban named 'shop', on sqlite, has looked in the transaction that it was created in.\n"
        "These jobs are there, the nearest match first (2 available):\n"
        "\n"
        "  job 1 of 'tests.messages.Confirm' in the queue 'mailers', available\n"
        "      args: {'order': 7, 'lang': 'en'}\n"
        "      meta: {'by': 'ada'}\n"
        "      args['order'] is 7, not 8\n"
        "  job 2 of 'tests.messages.Remind' in the queue 'default', available\n"
        "      args: {'order': 8}\n"
        "      worker is 'tests.messages.Remind'\n"
        "      queue is 'default'"
    )


def test_without_any_job_the_message_says_so(oban: SyncOban) -> None:
    assert message(oban) == (
        "no enqueued job matches\n"
        "  state: available, scheduled or suspended\n"
        "\n"
        "The SyncOban named 'shop', on sqlite, has looked in the transaction that it was created in.\n"
        "There are no jobs at all. A job that was added to a session appears after a flush or commit of the"
        " session; pass the session as session= to flush it here."
    )


def test_without_any_job_the_message_names_the_database_of_the_application(
    oban: SyncOban, tmp_path: Path
) -> None:
    application = SyncOban(f"sqlite:///{tmp_path}/shop.db", name="shop")
    assert "Another client of this name is on sqlite" in (text := message(oban))
    assert f"{tmp_path}/shop.db; jobs of that client" in text
    del application


def test_a_refuted_job_is_shown(oban: SyncOban) -> None:
    for number in range(7):
        oban.enqueue(Confirm.new({"order": number}))
    oban.enqueue(Remind.new())
    with pytest.raises(AssertionError) as caught:
        refute_enqueued(oban=oban, worker=Confirm)
    lines = str(caught.value).splitlines()
    assert lines[:8] == [
        "no enqueued job should match",
        "  worker: 'tests.messages.Confirm'",
        "  state: available, scheduled or suspended",
        "",
        "The SyncOban named 'shop', on sqlite, has looked in the transaction that it was created in. These"
        " jobs match:",
        "",
        "  job 7 of 'tests.messages.Confirm' in the queue 'default', available",
        "      args: {'order': 6}",
    ]
    assert lines[-2:] == ["      args: {'order': 2}", "  and more"]


#: The columns of a job, filters that it does not match, and what the message says about it.
DIFFERENCES: list[tuple[dict[str, Any], dict[str, Any], list[str]]] = [
    ({"state": "completed"}, {}, ["state is completed"]),
    ({"state": "executing"}, {"state": "available"}, ["state is executing"]),
    ({"queue": "media"}, {"queue": "mailers"}, ["queue is 'media'"]),
    ({"tags": ["a"]}, {"tags": ["a", "b", "c"]}, ["tags are ['a'], without ['b', 'c']"]),
    ({"args": {"a": 1}}, {"args": {"a": True}}, ["args['a'] is 1, not True"]),
    ({"args": {"a": 1}}, {"args": {"b": 1}}, ["args['b'] is missing"]),
    ({"args": {"a": {"b": [1, 2]}}}, {"args": {"a": {"b": [1, 3]}}}, ["args['a']['b'][1] is 2, not 3"]),
    ({"args": {"a": [1]}}, {"args": {"a": [1, 2]}}, ["args['a'] is [1], not [1, 2]"]),
    ({"args": {"a": [1]}}, {"args": {"a": {"b": 1}}}, ["args['a'] is [1], not {'b': 1}"]),
    (
        {"args": {"a": 1, "b": 1}},
        {"args": {"a": 2, "b": 2}},
        ["args['a'] is 1, not 2", "args['b'] is 1, not 2"],
    ),
    ({"meta": {"a": "x"}}, {"meta": {"a": "y"}}, ["meta['a'] is 'x', not 'y'"]),
    ({"priority": 1}, {"priority": 2}, ["priority is 1"]),
    (
        {"scheduled_at": NOON},
        {"scheduled_in": 61},
        ["scheduled_at is 2030-01-01T12:00:00+00:00, 0:01:01 too early"],
    ),
    (
        {"scheduled_at": NOON + timedelta(days=2, milliseconds=1500)},
        {"scheduled_at": (NOON, 1)},
        ["scheduled_at is 2030-01-03T12:00:01.500000+00:00, 2 days, 0:00:01.5 too late"],
    ),
    ({"attempted_at": NOON}, {"attempted_at": None}, ["attempted_at is 2030-01-01T12:00:00+00:00"]),
    ({}, {"attempted_at": NOON}, ["attempted_at is None"]),
]


@pytest.mark.parametrize(("columns", "filters", "differences"), DIFFERENCES)
def test_the_message_says_how_a_job_differs(
    columns: dict[str, Any],
    filters: dict[str, Any],
    differences: list[str],
    oban: SyncOban,
    connection: Connection,
) -> None:
    connection.execute(insert(Job.__table__), row(**{"args": {}, "worker": "w", **columns}))
    lines = listed(oban, **filters)
    assert [line for line in lines[1:] if not line.startswith(("args: ", "meta: "))] == differences


#: Jobs, and filters that match none of them, for which the later of two jobs is farther away.
ORDERS: list[tuple[list[dict[str, Any]], dict[str, Any]]] = [
    # In another state, rather than of another worker.
    ([{"state": "completed", "worker": "w"}, {"worker": "v"}], {"worker": "w"}),
    # In another queue, rather than with other args.
    ([{"queue": "a", "args": {"n": 1}}, {"args": {"n": 2}}], {"queue": "default", "args": {"n": 1}}),
    # With more of the args.
    (
        [{"args": {"a": 1, "b": 2, "c": 0}}, {"args": {"a": 1, "b": 0, "c": 0}}],
        {"args": {"a": 1, "b": 2, "c": 3}},
    ),
    ([{"args": {"a": {"x": 1, "y": 1}}}, {"args": {}}], {"args": {"a": {"x": 1, "y": 2}}}),
    # With more of the tags.
    ([{"tags": ["a", "b"]}, {"tags": ["a"]}], {"tags": ["a", "b", "c"]}),
    # Due at a nearer time.
    (
        [{"scheduled_at": NOON + timedelta(minutes=2)}, {"scheduled_at": NOON - timedelta(hours=3)}],
        {"scheduled_in": 60},
    ),
    # Of a worker with a similar name.
    ([{"worker": "shop.mail.Confirm"}, {"worker": "shop.Report"}], {"worker": "Confirm"}),
    # The newer one of two that differ in the same way.
    ([{"args": {"n": 1}, "queue": "b"}, {"args": {"n": 1}, "queue": "b"}][::-1], {"args": {"n": 2}}),
]


@pytest.mark.parametrize(("jobs", "filters"), ORDERS)
@pytest.mark.parametrize("backwards", [False, True])
def test_the_nearest_match_comes_first(
    backwards: bool,
    jobs: list[dict[str, Any]],
    filters: dict[str, Any],
    oban: SyncOban,
    connection: Connection,
) -> None:
    rows = [row(**{"args": {}, "worker": "w", **job}) for job in jobs]
    connection.execute(insert(Job.__table__), rows[::-1] if backwards else rows)
    same = jobs[0] == jobs[1]
    assert nearest(oban, **filters) == ([2, 1] if backwards or same else [1, 2])


def test_a_near_match_is_found_among_many_jobs(oban: SyncOban, connection: Connection) -> None:
    near = [
        row(worker="w", args={"n": 1}, queue="other"),
        row(worker="w", args={"n": 1}, state="completed"),
        row(worker="v", args={"n": 1}),
        row(worker="w", args={"n": 0}),
    ]
    far = [row(worker="x", queue="y", args={"n": number}) for number in range(2, 1002)]
    connection.execute(insert(Job.__table__), near + far)
    lines = listed(oban, worker="w", args={"n": 1}, queue="default")
    assert [line for line in lines if line.startswith("job")][:4] == [
        "job 2 of 'w' in the queue 'default', completed",
        "job 1 of 'w' in the queue 'other', available",
        "job 4 of 'w' in the queue 'default', available",
        "job 3 of 'v' in the queue 'default', available",
    ]
    assert lines[-1] == "and 999 more"
    assert "(1,003 available, 1 completed)" in message(oban, worker="w", args={"n": 1}, queue="default")


def test_the_message_stays_short(oban: SyncOban, connection: Connection) -> None:
    large = {f"key{number}": "x" * 500 for number in range(100)}
    rows = [row(worker="w" * 255, queue="q" * 128, args=large, meta=large, tags=["t" * 255] * 9)] * 20
    connection.execute(insert(Job.__table__), rows)
    wanted = dict.fromkeys(large, "y" * 500)
    text = message(
        oban, args=wanted, meta=wanted, tags=["u" * 255, "v"], worker="v" * 255, state=list(JobState)
    )
    assert len(text) < 10_000
    assert "and 197 more differences" in text
    assert "and 15 more" in text
    with pytest.raises(AssertionError) as caught:
        refute_enqueued(oban=oban)
    assert len(str(caught.value)) < 4000


def test_a_name_that_no_worker_has_may_be_misspelled(oban: SyncOban) -> None:
    assert "is named 'tests.messages.Confrim'; did you mean 'tests.messages.Confirm'?" in message(
        oban, worker="tests.messages.Confrim"
    )
    assert "is named 'q'." in message(oban, worker=["q", Confirm])
    assert "No worker" not in message(oban, worker=Confirm)
    oban.enqueue(Job(worker="elsewhere"))
    assert "No worker" not in message(oban, worker="elsewhere", queue="media")


def test_only_a_client_with_transactions_of_its_own_does_not_see_open_ones(tmp_path: Path) -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    migration.upgrade(engine)
    assert "on the connection that everybody shares." in message(SyncOban(engine))
    engine.dispose()
    oban = SyncOban(f"sqlite:///{tmp_path / 'shop.db'}")
    migration.upgrade(oban.engine)
    assert "in a transaction of its own.\nIt sees only what was committed." in message(oban)
    oban.stop()


def test_a_column_of_a_strange_type_is_in_nobodys_way(oban: SyncOban, connection: Connection) -> None:
    connection.execute(insert(Job.__table__), row(worker="w", args={}, queue="media"))
    connection.exec_driver_sql("UPDATE oban_jobs SET args = '7', tags = '{', scheduled_at = 'x', queue = 5")
    text = message(oban, args={"a": 1}, tags="a", scheduled_in=5, queue="media")
    assert "args is 7, not {'a': 1}" in text
    assert "queue is '5'" in text
