"""Of several queue commands the most recent one wins, per field, queue and node."""

import asyncio
import random
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import URL, Engine, NullPool, create_engine, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Oban, QueueInfo, QueueOptions, SyncOban
from oban.errors import ConfigError, InvalidJob, InvalidTarget
from oban.models import Producer, Queue
from oban.repository import queue_settings
from oban.repository.queue_settings import QueueCommand, QueueState
from tests.support.databases import DATABASES
from tests.support.rows import lasting_url
from tests.support.transactions import joined

CONFIGURED = {"a": QueueOptions(limit=3), "b": QueueOptions(limit=4)}
AS_CONFIGURED = {"a": QueueState(3, False), "b": QueueState(4, False)}
#: No command names `y`, which stands for nodes that start later.
NODES = ("x", "z", "y")


@pytest.fixture(scope="module", params=DATABASES)
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
def engine(url: URL) -> Iterator[Engine]:
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[url.get_backend_name()]
    made = create_engine(url.set(drivername=driver), poolclass=NullPool)
    with made.begin() as connection:
        for table in ("oban_queues", "oban_producers"):
            connection.execute(text(f"DELETE FROM {table}"))
    yield made
    made.dispose()


def store(engine: Engine, *words: tuple[Any, ...], name: str = "Oban") -> None:
    """Store commands: each is an action, a queue, a node and the options of the action."""
    for action, queue, node, *how in words:
        options: dict[str, Any] = how[0] if how else {}
        with Session(engine) as session:
            queue_settings.store_command(
                joined(session), name, QueueCommand.make(action, queue, node, **options)
            )
            session.commit()


def start(engine: Engine, node: str, configured: Mapping[str, QueueOptions], name: str = "Oban") -> None:
    """Store that a node was started."""
    with Session(engine) as session:
        queue_settings.store_start(joined(session), name, node, configured)
        session.commit()


def queues_of(
    engine: Engine,
    node: str = "x",
    configured: Mapping[str, QueueOptions] = CONFIGURED,
    name: str = "Oban",
) -> dict[str, QueueState]:
    with Session(engine) as session:
        return queue_settings.load_states(joined(session), name, node, configured)


#: The commands in order; then the queues of node x, and of a node that no command names, where they differ
#: from the configuration. None means that the queue does not run.
TABLE: list[Any] = [
    ([], {}, {}),
    ([("pause", "a", None)], {"a": (3, True)}, {"a": (3, True)}),
    ([("pause", "a", "x")], {"a": (3, True)}, {}),
    ([("pause", "a", "z")], {}, {}),
    ([("pause", "a", None), ("resume", "a", "x")], {}, {"a": (3, True)}),
    ([("resume", "a", "x"), ("pause", "a", None)], {"a": (3, True)}, {"a": (3, True)}),
    ([("pause", "a", "x"), ("resume", "a", None)], {}, {}),
    ([("pause", "*", None)], {"a": (3, True), "b": (4, True)}, {"a": (3, True), "b": (4, True)}),
    ([("pause", "*", "x")], {"a": (3, True), "b": (4, True)}, {}),
    ([("pause", "*", None), ("resume", "a", None)], {"b": (4, True)}, {"b": (4, True)}),
    ([("pause", "*", None), ("resume", "a", "x")], {"b": (4, True)}, {"a": (3, True), "b": (4, True)}),
    ([("pause", "*", None), ("resume", "*", "x")], {}, {"a": (3, True), "b": (4, True)}),
    ([("pause", "*", "x"), ("resume", "*", None)], {}, {}),
    ([("pause", "*", "x"), ("resume", "a", None)], {"b": (4, True)}, {}),
    ([("resume", "a", None), ("pause", "*", "x")], {"a": (3, True), "b": (4, True)}, {}),
    ([("pause", "a", None), ("resume", "*", "x")], {}, {"a": (3, True)}),
    ([("pause", "a", None), ("resume", "*", None)], {}, {}),
    ([("pause", "a", "x"), ("resume", "*", None)], {}, {}),
    ([("pause", "a", "x"), ("resume", "*", "x")], {}, {}),
    ([("pause", "a", "z"), ("resume", "*", "x")], {}, {}),
    (
        [("pause", "*", None), ("start", "c", None)],
        {"a": (3, True), "b": (4, True), "c": (10, False)},
        {"a": (3, True), "b": (4, True), "c": (10, False)},
    ),
    (
        [("start", "c", None), ("pause", "*", "x")],
        {"a": (3, True), "b": (4, True), "c": (10, True)},
        {"c": (10, False)},
    ),
    ([("start", "c", "x", {"limit": 2, "paused": True})], {"c": (2, True)}, {}),
    ([("start", "c", None), ("stop", "c", "x")], {}, {"c": (10, False)}),
    ([("start", "c", None), ("stop", "c", None)], {}, {}),
    ([("start", "c", "x"), ("stop", "c", None)], {}, {}),
    ([("stop", "a", None)], {"a": None}, {"a": None}),
    ([("stop", "a", "x")], {"a": None}, {}),
    ([("stop", "a", None), ("start", "a", "x")], {"a": (10, False)}, {"a": None}),
    (
        [("pause", "a", None), ("stop", "a", None), ("start", "a", None, {"limit": 7})],
        *[{"a": (7, False)}] * 2,
    ),
    ([("scale", "a", None, {"limit": 9})], {"a": (9, False)}, {"a": (9, False)}),
    (
        [("scale", "a", None, {"limit": 9}), ("scale", "a", "x", {"limit": 1})],
        {"a": (1, False)},
        {"a": (9, False)},
    ),
    ([("scale", "a", "x", {"limit": 1}), ("scale", "a", None, {"limit": 9})], *[{"a": (9, False)}] * 2),
    ([("scale", "a", None, {"limit": 9}), ("scale", "a", None, {"limit": None})], {}, {}),
    ([("scale", "a", None, {"limit": 9}), ("scale", "a", "x", {"limit": None})], {}, {"a": (9, False)}),
    ([("scale", "a", "x", {"limit": 9}), ("pause", "a", None)], {"a": (9, True)}, {"a": (3, True)}),
    (
        [("scale", "a", None, {"limit": 9}), ("stop", "a", None), ("start", "b", None)],
        *[{"a": None, "b": (10, False)}] * 2,
    ),
    # A command can name a queue that no node runs; it applies once the queue is started.
    ([("scale", "c", None, {"limit": 9}), ("pause", "c", None)], {}, {}),
    ([("start", "c", "x", {"limit": 2}), ("scale", "c", "x", {"limit": None})], {"c": (10, False)}, {}),
]


@pytest.mark.parametrize(("said", "here", "elsewhere"), TABLE, ids=[str(item[0]) for item in TABLE])
def test_the_most_recent_command_wins(
    engine: Engine, said: list[tuple[Any, ...]], here: dict[str, Any], elsewhere: dict[str, Any]
) -> None:
    store(engine, *said)
    for node, differs in (("x", here), ("y", elsewhere)):
        expected = {**AS_CONFIGURED, **differs}
        assert queues_of(engine, node) == {queue: how for queue, how in expected.items() if how}


@pytest.mark.slow
def test_many_commands_have_the_same_effect_as_if_every_node_had_applied_each(engine: Engine) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    everything = [*CONFIGURED, "c"]
    running = {(queue, node): queue in CONFIGURED for queue in everything for node in NODES}
    limits: dict[Any, int | None] = dict.fromkeys(running)
    paused = dict.fromkeys(running, False)
    configured = dict.fromkeys(NODES, CONFIGURED)
    since_start = dict.fromkeys(running, False)
    for _ in range(150):
        if dice.random() < 0.3:
            started = dice.choice(NODES)
            configured[started] = {
                queue: QueueOptions(limit=options.limit, paused=dice.random() < 0.5)
                for queue, options in CONFIGURED.items()
            }
            start(engine, started, configured[started])
            for queue, options in configured[started].items():
                since_start[queue, started] = options.paused
        action = dice.choice(queue_settings.ACTIONS)
        queue = dice.choice([*everything, "*", "*"] if action in ("pause", "resume") else everything)
        node = dice.choice([None, None, "x", "z"])
        limit = dice.choice([None, 1, 5]) if action == "scale" else dice.choice([1, 5])
        start_paused = dice.random() < 0.5
        store(engine, (action, queue, node, {"limit": limit, "paused": start_paused}))
        for key in running:
            if (queue != "*" and key[0] != queue) or (node is not None and key[1] != node):
                continue
            if action in ("pause", "resume", "start"):
                since_start[key] = False
            if action in ("pause", "resume"):
                paused[key] = action == "pause"
            if action in ("start", "stop"):
                running[key] = action == "start"
            if action in ("start", "scale"):
                limits[key] = limit
            if action == "start":
                paused[key] = start_paused
        for node in NODES:
            expected = {
                queue: QueueState(
                    limits[queue, node] or CONFIGURED.get(queue, QueueOptions()).limit,
                    since_start[queue, node] or paused[queue, node],
                )
                for queue in everything
                if running[queue, node]
            }
            assert queues_of(engine, node, configured[node]) == expected


PAUSED = {"a": QueueOptions(limit=3, paused=True), "b": QueueOptions(limit=4)}
#: The earlier commands, the later ones, and whether `a` is then paused on node x, which is configured and was
#: started like this in between.
STARTS: list[Any] = [
    ([], [], True),
    ([], [("resume", "a", "x")], False),
    ([], [("resume", "a", None)], False),
    ([], [("resume", "*", None)], False),
    ([], [("resume", "*", "x")], False),
    ([], [("resume", "a", "z")], True),
    ([], [("resume", "*", "z")], True),
    ([], [("resume", "b", None)], True),
    ([], [("start", "a", None)], False),
    ([], [("start", "a", None, {"paused": True})], True),
    ([], [("scale", "a", None, {"limit": 3})], True),
    ([], [("stop", "b", None)], True),
    ([], [("resume", "a", None), ("pause", "*", "x")], True),
    ([("resume", "a", "x")], [], True),
    ([("resume", "a", None)], [("scale", "a", None, {"limit": 3})], True),
    ([("pause", "*", None), ("resume", "*", None)], [], True),
    ([("pause", "*", None), ("resume", "*", None)], [("resume", "b", "x")], True),
    ([("resume", "*", None)], [("resume", "*", None)], False),
    ([("start", "a", None)], [("resume", "a", "x")], False),
    ([("pause", "a", None)], [], True),
    ([("pause", "a", None)], [("resume", "a", None)], False),
]


def test_a_queue_starts_paused_until_a_later_command(engine: Engine) -> None:
    for number, (before, later, paused) in enumerate(STARTS):
        name, case = f"instance-{number}", (before, later)
        store(engine, *before, name=name)
        start(engine, "x", PAUSED, name=name)
        store(engine, *later, name=name)
        assert queues_of(engine, "x", PAUSED, name=name)["a"].paused is paused, case
        # Each start pauses it again, unless the configuration has changed. Then the commands apply.
        start(engine, "x", PAUSED, name=name)
        assert queues_of(engine, "x", PAUSED, name=name)["a"].paused is True, case
        start(engine, "x", CONFIGURED, name=name)
        commands = [item for item in (*before, *later) if item[1] in "a*" and item[2] in (None, "x")]
        last = [item for item in commands if item[0] not in ("scale", "stop")][-1:]
        is_paused = any(item[0] == "pause" or item[3:] == ({"paused": True},) for item in last)
        assert queues_of(engine, "x", name=name)["a"].paused is is_paused, case


def test_a_start_leaves_no_row_unless_an_earlier_command_resumed_the_queue(engine: Engine) -> None:
    start(engine, "x", PAUSED)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Queue)) == 0


def test_queues_are_listed_as_configured_and_then_by_name(engine: Engine) -> None:
    store(engine, ("start", "d", None), ("start", "c", "x"), ("pause", "b", None))
    configured = {"b": QueueOptions(), "a": QueueOptions()}
    assert list(queues_of(engine, configured=configured)) == ["b", "a", "c", "d"]


def test_commands_do_not_apply_to_instances_of_other_names(engine: Engine) -> None:
    store(engine, ("pause", "*", None), ("stop", "a", "x"), name="other")
    assert queues_of(engine) == AS_CONFIGURED
    assert queues_of(engine, name="other") == {"b": QueueState(4, True)}


def test_commands_without_effect_are_deleted(engine: Engine) -> None:
    for node in ("n1", "n2", "n3"):
        store(engine, ("pause", "a", node), ("pause", "*", node), ("scale", "b", node, {"limit": 5}))
    store(engine, ("resume", "*", None), ("scale", "b", None, {"limit": None}))
    with engine.connect() as connection:
        rows = connection.execute(select(Queue.queue, Queue.node, Queue.limit, Queue.paused))
        assert set(map(tuple, rows)) == {("*", "", None, False), ("b", "", 0, None)}


def test_rows_that_were_written_by_hand_are_read_as_far_as_possible(engine: Engine) -> None:
    with engine.begin() as connection:
        for queue, node, limit in (
            ("a", "", -5),
            ("b", "", 10**9),
            ("*", "", 7),
            ("Ü x", "", 2),
            ("c", "z", 2),
        ):
            values = {"name": "Oban", "queue": queue, "node": node, "limit": limit, "running": True}
            connection.execute(insert(Queue).values(**values))
    assert queues_of(engine) == {
        "a": QueueState(3, False),
        "b": QueueState(10_000, False),
        "Ü x": QueueState(2, False),
    }


HEARD = [
    ([("pause", "a")], {"a": (3, True)}),
    ([("pause", "*")], {"a": (3, True), "b": (4, True)}),
    ([("stop", "b")], {"b": None}),
    ([("start", "c", {"limit": 2}), ("pause", "c")], {"c": (2, True)}),
    ([("scale", "a", {"limit": 8}), ("scale", "a", {"limit": 9})], {"a": (9, False)}),
    ([("pause", "nobody"), ("stop", "nobody"), ("scale", "nobody")], {}),
]


@pytest.mark.parametrize(("heard", "here"), HEARD)
def test_a_command_that_one_node_received_is_stored_for_that_node_only(
    engine: Engine, heard: list[tuple[Any, ...]], here: dict[str, Any]
) -> None:
    changes = [QueueCommand.make(action, queue, **(how[0] if how else {})) for action, queue, *how in heard]
    # Twice, as two processes can have the same node name.
    for _ in range(2):
        with Session(engine) as session:
            queue_settings.store_received(joined(session), "Oban", "x", CONFIGURED, changes)
            session.commit()
    expected = {**AS_CONFIGURED, **here}
    assert queues_of(engine) == {queue: how for queue, how in expected.items() if how}
    assert queues_of(engine, "y") == AS_CONFIGURED
    with engine.connect() as connection:
        nobody = select(func.count()).select_from(Queue).where(Queue.queue == "nobody")
        assert connection.scalar(nobody) == 0


def test_signals_have_the_format_of_other_implementations() -> None:
    for change, signal in (
        (QueueCommand.make("pause", "a"), {"action": "pause", "queue": "a", "ident": "any"}),
        (QueueCommand.make("resume", "*", "n 1"), {"action": "resume", "queue": "*", "ident": "Oban.n 1"}),
        (
            QueueCommand.make("start", "a", limit=4),
            {"action": "start", "queue": "a", "ident": "any", "limit": 4, "paused": False},
        ),
        (QueueCommand.make("stop", "a", "n"), {"action": "stop", "queue": "a", "ident": "Oban.n"}),
        (
            QueueCommand.make("scale", "a", limit=7),
            {"action": "scale", "queue": "a", "ident": "any", "limit": 7},
        ),
        (QueueCommand.make("scale", "a", limit=None), {"action": "scale", "queue": "a", "ident": "any"}),
    ):
        assert change.signal("Oban") == signal


BAD: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *(
        (method, (queue,), {}, InvalidJob, message)
        for method in ("pause_queue", "resume_queue", "stop_queue", "start_queue", "check_cluster")
        for queue, message in (("", "not a queue name"), ("a b", "not a queue name"), (7, "must be a string"))
    ),
    *(
        (method, ("*",), {}, InvalidJob, "not a queue name")
        for method in ("pause_queue", "stop_queue", "start_queue")
    ),
    ("pause_queue", ("x" * 129,), {}, InvalidJob, "up to 128"),
    ("scale_queue", ("a b", 3), {}, InvalidJob, "not a queue name"),
    *(
        (method, arguments, {"node": node}, ConfigError, f"^node must {message}")
        for method, arguments in (
            ("pause_queue", ("a",)),
            ("scale_queue", ("a", 1)),
            ("resume_all_queues", ()),
        )
        for node, message in (
            ("", "be a string that is not blank"),
            (" ", "be a string that is not blank"),
            (5, "be a string"),
            ("a\x00", "have up to 255 characters and no NUL"),
            ("n" * 256, "have up to 255 characters"),
            ("\ud800", "not have lone surrogates"),
        )
    ),
    *(
        (method, ("a", limit), {}, ConfigError, "^limit must be an integer from 1 to 10000, not")
        for method in ("start_queue", "scale_queue")
        for limit in (0, -1, 10_001, True, "5", 1.5, float("nan"))
    ),
    ("start_queue", ("a", None), {}, ConfigError, "limit must be an integer"),
    ("start_queue", ("a",), {"paused": 1}, ConfigError, "paused must be True or False, not 1"),
    ("pause_queue", ("a",), {"session": "none"}, InvalidTarget, "AsyncSession or AsyncConnection"),
]


async def test_an_invalid_command_is_refused_and_nothing_is_stored(oban: Oban, engine: Engine) -> None:
    for method, arguments, options, error, message in BAD:
        with pytest.raises(error, match=message):
            await getattr(oban, method)(*arguments, **options)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Queue)) == 0


async def test_every_method_stores_its_command(oban: Oban, engine: Engine) -> None:
    await oban.pause_all_queues()
    await oban.resume_all_queues("z")
    await oban.pause_queue("a", "z")
    await oban.resume_queue("b")
    await oban.start_queue("c", 5, True)
    await oban.start_queue("d", node="z")
    await oban.scale_queue("b", 2)
    await oban.stop_queue("a", node="x")
    assert queues_of(engine) == {"b": QueueState(2, False), "c": QueueState(5, True)}
    assert queues_of(engine, "z") == {
        "a": QueueState(3, True),
        "b": QueueState(2, False),
        "c": QueueState(5, True),
        "d": QueueState(10, False),
    }


@pytest.mark.parametrize("kind", ["session", "connection"])
@pytest.mark.parametrize("commits", [True, False])
async def test_in_the_callers_transaction_the_caller_commits(
    oban: Oban, engine: Engine, kind: str, commits: bool
) -> None:
    async with AsyncSession(oban.engine) if kind == "session" else oban.engine.connect() as caller:
        await oban.pause_queue("a", session=caller)
        await oban.scale_queue("b", 9, session=caller)
        # Not committed yet. On SQLite another writer would wait, but a reader does not.
        assert queues_of(engine) == AS_CONFIGURED
        await (caller.commit() if commits else caller.rollback())
    told = {"a": QueueState(3, True), "b": QueueState(9, False)}
    assert queues_of(engine) == (told if commits else AS_CONFIGURED)


async def test_transactions_with_the_same_commands_in_another_order_wait_for_each_other(
    oban: Oban, engine: Engine
) -> None:
    begun = asyncio.Event()

    async def second() -> None:
        async with AsyncSession(oban.engine) as session:
            begun.set()
            await oban.pause_queue("b", session=session)
            await oban.scale_queue("a", 8, session=session)
            await session.commit()

    async with AsyncSession(oban.engine) as session:
        await oban.pause_queue("a", session=session)
        waiting = asyncio.create_task(second())
        await begun.wait()
        # Long enough for the second transaction to get as far as it can.
        await asyncio.sleep(0.2)
        await oban.scale_queue("b", 9, session=session)
        await session.commit()
    await waiting
    assert queues_of(engine) == {"a": QueueState(8, True), "b": QueueState(9, True)}


async def test_the_stored_settings_are_listed_with_no_node_running(oban: Oban, engine: Engine) -> None:
    assert await oban.list_queue_settings() == []
    started = datetime.now(UTC) - timedelta(seconds=1)
    await oban.pause_queue("b")
    assert [item.queue for item in await oban.list_queue_settings()] == ["b"]
    await oban.scale_queue("a", 4)
    await oban.scale_queue("a", None, node="x")
    await oban.start_queue("c", 2, node="z")
    await oban.stop_queue("d")
    await oban.resume_all_queues(node="y")
    store(engine, ("pause", "a", None), name="other")
    listed = await oban.list_queue_settings()
    assert [(item.queue, item.node, item.running, item.limit, item.paused) for item in listed] == [
        ("*", "y", None, None, False),
        ("a", None, None, 4, None),
        ("a", "x", None, 0, None),
        ("b", None, None, None, True),
        ("b", "y", None, None, False),
        ("c", "z", True, 2, False),
        ("d", None, False, None, None),
    ]
    assert all(started < item.updated_at <= datetime.now(UTC) for item in listed)
    assert await oban.list_queue_settings("a") == listed[1:3]
    assert await oban.list_queue_settings(queue="nobody") == []
    with pytest.raises(FrozenInstanceError):
        listed[0].paused = True  # type: ignore[misc]
    for queue in ("*", "", 5):
        with pytest.raises(InvalidJob):
            await oban.list_queue_settings(queue)  # type: ignore[arg-type]


async def test_a_queue_that_is_paused_since_a_start_is_listed_as_paused(oban: Oban, engine: Engine) -> None:
    store(engine, ("resume", "a", None), ("scale", "a", "x", {"limit": 5}))
    start(engine, "x", PAUSED)
    await oban.pause_all_queues("z")
    async with AsyncSession(oban.engine) as session:
        listed = await oban.list_queue_settings(session=session)
    assert [(item.queue, item.node, item.limit, item.paused) for item in listed] == [
        ("*", "z", None, True),
        ("a", None, None, False),
        ("a", "x", 5, True),
        ("a", "z", None, True),
    ]
    assert await oban.list_queue_settings("a") == listed[1:]
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[oban.engine.url.get_backend_name()]
    with SyncOban(oban.engine.url.set(drivername=driver)) as client:
        assert client.list_queue_settings() == listed


STARTED = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
SEEN = STARTED + timedelta(minutes=1)
#: `meta` as a node could write it; then the limit, whether the queue is paused, and the running jobs.
METAS: list[tuple[Any, tuple[int | None, bool, tuple[int, ...]]]] = [
    ({"local_limit": 10, "paused": False}, (10, False, ())),
    (
        {"local_limit": 3, "paused": True, "running": [5, 7], "global_limit": {"allowed": 1}},
        (3, True, (5, 7)),
    ),
    ({}, (None, False, ())),
    ({"local_limit": "3", "paused": "yes", "running": "5"}, (None, False, ())),
    ({"local_limit": None, "paused": None, "running": [None, 4, "x", {}]}, (None, False, (4,))),
    ({"local_limit": True, "running": {"5": 1}}, (None, False, ())),
    ([], (None, False, ())),
    ("text", (None, False, ())),
]


async def test_the_queues_of_all_nodes_are_read_from_producer_rows(oban: Oban, engine: Engine) -> None:
    def row(number: int, **columns: Any) -> dict[str, Any]:
        common = {"uuid": UUID(int=number), "name": "Oban", "node": f"n{number}", "queue": "a", "meta": {}}
        return {**common, "started_at": STARTED, "updated_at": SEEN, **columns}

    rows = [row(number, meta=meta) for number, (meta, _) in enumerate(METAS)]
    rows += [row(20, name="other"), row(21, queue="b"), row(22, queue="b", node="n0")]
    with engine.begin() as connection:
        connection.execute(insert(Producer), rows)
    infos = await oban.check_cluster("a")
    assert [(info.limit, info.paused, info.running) for info in infos] == [read for _, read in METAS]
    assert infos[1] == QueueInfo(
        queue="a",
        node="n1",
        limit=3,
        paused=True,
        running=(5, 7),
        started_at=STARTED,
        updated_at=SEEN,
        uuid=str(UUID(int=1)),
    )
    with pytest.raises(FrozenInstanceError):
        infos[1].limit = 4  # type: ignore[misc]
    everything = await oban.check_cluster()
    assert [(info.queue, info.node) for info in everything[-2:]] == [("b", "n0"), ("b", "n21")]
    assert len(everything) == len(METAS) + 2
    async with AsyncSession(oban.engine) as session:
        assert await oban.check_cluster(session=session) == everything
    assert await oban.check_cluster("nobody") == []


def test_a_client_reports_that_it_runs_no_queues(url: URL) -> None:
    client = Oban(url)
    assert client.check_queue("a") is None
    assert client.check_all_queues() == []
