"""Signals of each implementation reach nodes of the other one."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import URL, select

from oban import JobState, Oban
from oban.models import Queue
from tests.sharing import workers
from tests.sharing.peer import Peer
from tests.sharing.workers import OURS, Resize
from tests.support.jobs import reaches, row_of
from tests.support.waiting import eventually, quiet


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    """A node of this library that finds nothing by polling."""
    workers.seen.clear()
    workers.finished.clear()
    async with Oban(url, **OURS) as node:
        yield node


def here(oban: Oban) -> dict[str, list[Any]]:
    return {info.queue: [info.limit, info.paused] for info in oban.check_all_queues()}


async def test_a_cancel_by_oban_py_reaches_a_job_that_runs_here(peer: Peer, url: URL, oban: Oban) -> None:
    await peer.start(url)
    ours = await oban.enqueue(Resize.new({"wait": True}))
    other = await oban.enqueue(Resize.new({"wait": True}))
    await eventually(lambda: len(workers.seen) == 2)
    assert await peer.call("cancel_many_jobs", [ours.id]) == 1
    row = await reaches(oban, ours, JobState.CANCELLED, timeout=3)
    assert row.cancelled_at is not None
    # The reason that the run then returns is stored.
    await eventually(lambda: reason(oban, ours.id))
    assert (await peer.do("get", ours.id))["errors"] == (await row_of(oban, ours)).errors
    workers.finished.add(other.id)
    await reaches(oban, other, JobState.COMPLETED)


async def reason(oban: Oban, id_: int) -> bool:
    return [entry["error"] for entry in (await row_of(oban, id_)).errors] == ["was told so"]


async def test_our_cancel_reaches_a_job_that_runs_there(peer: Peer, url: URL, client: Oban) -> None:
    await peer.start(url, queues={"images": 5})
    cancelled, retried, other = [await client.enqueue(Resize.new({"wait": True})) for _ in range(3)]
    await eventually(lambda: begun(peer, 3))
    assert await client.cancel_job(cancelled)
    assert await client.cancel_job(retried)
    # The run that was cancelled must not end the one that follows.
    assert await client.retry_job(retried)
    await eventually(lambda: begun(peer, 4))
    for job in (other, retried):
        await peer.do("finish", job.id)
    assert (await reaches(client, other, JobState.COMPLETED)).errors == []
    row = await reaches(client, retried, JobState.COMPLETED)
    assert (row.attempt, row.errors) == (2, [])
    # The run was asked to end, and its node does not change the row.
    await eventually(lambda: ended(peer))
    row = await row_of(client, cancelled)
    assert (row.state, row.attempt) == (JobState.CANCELLED, 1)


async def begun(peer: Peer, number: int) -> bool:
    return len(await peer.do("seen")) == number


async def ended(peer: Peer) -> bool:
    return not await peer.do("running")


Say = tuple[str, tuple[Any, ...], dict[str, Any]]
#: Commands, and the resulting limit of each queue and whether it is paused.
CONTROL: list[tuple[Say, dict[str, list[Any]]]] = [
    (("pause_queue", ("images",), {}), {"images": [5, True]}),
    (("resume_queue", ("images",), {}), {"images": [5, False]}),
    (("pause_all_queues", (), {}), {"images": [5, True]}),
    (("resume_all_queues", (), {}), {"images": [5, False]}),
    (("pause_queue", ("images",), {"node": "nobody"}), {"images": [5, False]}),
    (("pause_queue", ("images",), {"node": "there"}), {"images": [5, True]}),
    (("resume_all_queues", (), {"node": "there"}), {"images": [5, False]}),
    (("scale_queue", (), {"queue": "images", "limit": 7}), {"images": [7, False]}),
    (("scale_queue", (), {"queue": "images", "limit": 8, "node": "there"}), {"images": [8, False]}),
    (
        ("start_queue", (), {"queue": "reports", "limit": 4, "paused": True}),
        {"images": [8, False], "reports": [4, True]},
    ),
    (("stop_queue", ("reports",), {}), {"images": [8, False]}),
    (("stop_queue", ("images",), {"node": "there"}), {}),
    (("start_queue", (), {"queue": "images", "limit": 3, "node": "there"}), {"images": [3, False]}),
]


def at(node: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**kwargs, "node": node} if kwargs.get("node") == "there" else kwargs


async def test_queue_commands_of_oban_py_are_applied_here(peer: Peer, url: URL, oban: Oban) -> None:
    await peer.start(url)
    for (method, args, kwargs), queues in CONTROL:
        await peer.call(method, *args, **at("ours", kwargs))
        await eventually(lambda: here(oban) == queues)  # noqa: B023
    # Oban-py does not store commands, but our node does.
    await peer.call("pause_all_queues")
    await eventually(lambda: here(oban) == {"images": [3, True]})
    await oban.stop()
    async with Oban(url, **OURS) as restarted:
        assert here(restarted) == {"images": [3, True]}


async def test_our_queue_commands_are_applied_there(peer: Peer, url: URL, client: Oban) -> None:
    await peer.start(url, queues={"images": 5})
    for (method, args, kwargs), queues in CONTROL:
        await getattr(client, method)(*args, **at("theirs", kwargs))
        await eventually(lambda: there(peer, queues))  # noqa: B023


async def test_a_queue_that_oban_py_started_at_run_time_cannot_be_paused(
    peer: Peer, url: URL, client: Oban
) -> None:
    # A bug of oban-py that the docs mention: another handler has removed the action from the signal.
    await peer.start(url, queues={"images": 5})
    await client.start_queue("reports", 4)
    await eventually(lambda: there(peer, {"images": [5, False], "reports": [4, False]}))
    await client.pause_all_queues()
    await eventually(lambda: there(peer, {"images": [5, True], "reports": [4, False]}))


async def there(peer: Peer, queues: dict[str, list[Any]]) -> bool:
    return bool(await peer.do("queues") == queues)


async def test_the_most_recent_command_wins_whoever_sent_it(
    peer: Peer, url: URL, oban: Oban, client: Oban
) -> None:
    await peer.start(url, queues={"images": 5})
    await client.scale_queue("images", 7)
    await eventually(lambda: there(peer, {"images": [7, False]}))
    # Oban-py has no command for "back to the configured limit".
    await client.scale_queue("images", None)
    commands: list[tuple[Callable[..., Any], str, bool]] = [
        (client.pause_queue, "images", True),
        (lambda queue: peer.call("resume_queue", queue), "images", False),
        (lambda queue: peer.call("pause_queue", queue), "images", True),
        (client.resume_queue, "images", False),
    ]
    for method, queue, paused in commands:
        await method(queue)
        await eventually(lambda: here(oban) == {"images": [5, paused]})  # noqa: B023
        await eventually(lambda: there(peer, {"images": [7, paused]}))  # noqa: B023
    # The received command is overruled, and the command of our client is stored once for all nodes.
    async with oban.engine.connect() as connection:
        assert set(await connection.scalars(select(Queue.node))) == {""}


async def test_a_paused_queue_fetches_on_neither_side(peer: Peer, url: URL, oban: Oban, client: Oban) -> None:
    await peer.start(url, queues={"images": 5})
    await client.pause_queue("images")
    paused = {"images": [5, True]}
    await eventually(lambda: there(peer, paused))
    # Oban-py does not wait for a fetch that is in progress.
    await quiet()
    job = await client.enqueue(Resize.new())
    theirs = await peer.do("enqueue", worker="shop.Resize", queue="images")
    # A job of another queue on each side completes after these were announced.
    await client.start_queue("marks", 1, node="ours")
    await reaches(client, await client.enqueue(Resize.new(queue="marks")), JobState.COMPLETED)
    assert (await row_of(client, job)).state is JobState.AVAILABLE
    await peer.call("resume_all_queues")
    for id_ in (job.id, theirs["id"]):
        await reaches(client, id_, JobState.COMPLETED)


async def test_each_side_sees_the_nodes_of_the_other(peer: Peer, url: URL, oban: Oban, client: Oban) -> None:
    await peer.start(url, queues={"images": 4})
    await peer.call("pause_queue", "images", node="theirs")
    infos = {info.node: (info.limit, info.paused) for info in await client.check_cluster("images")}
    assert infos == {"ours": (5, False), "theirs": (4, True)}
