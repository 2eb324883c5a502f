"""Heartbeats tell what a node is: its workers, clock, listener, version and process."""

import os
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import URL, insert

import oban as package
from oban import Oban, clock
from oban.models import Producer
from oban.registry import Registry
from oban.repository.nodes import NodeInfo, list_nodes
from tests.support.internals import database_of
from tests.support.options import FAST_POLLING
from tests.support.schema import render, sync_engine
from tests.support.waiting import eventually
from tests.support.workers import Noop

OFTEN: dict[str, Any] = {"heartbeat_interval": 0.05, **FAST_POLLING}


async def nodes(oban: Oban) -> list[NodeInfo]:
    return await database_of(oban).read(list_nodes, oban.options.name)


async def node(oban: Oban) -> NodeInfo:
    (found,) = await nodes(oban)
    return found


async def hears(oban: Oban, answer: bool) -> NodeInfo:
    """The node, once it says that."""

    async def found() -> NodeInfo | None:
        now = await node(oban)
        return now if now.hears is answer else None

    info: NodeInfo = await eventually(found)
    return info


async def test_a_heartbeat_says_who_the_node_is(url: URL) -> None:
    async with Oban(url, node="n1", queues={"default": 2, "other": 1}, **OFTEN) as oban:
        info = await hears(oban, True)
        assert (info.node, info.pid, info.version) == ("n1", os.getpid(), package.__version__)
        assert info.listener == ("data_version" if url.get_backend_name() == "sqlite" else "listen")
        assert info.alive
        assert info.lease == 60.0
        assert info.clock_skew is not None
        assert abs(info.clock_skew) < 5
        assert info.workers is not None
        assert Noop.worker_name in info.workers
        assert [queue.queue for queue in info.queues] == ["default", "other"]
        assert [queue.uuid for queue in info.queues] == [queue.uuid for queue in await oban.check_cluster()]


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_a_node_that_polls_says_so(url: URL) -> None:
    async with Oban(url, queues={"default": 2}, notifier="poll", **OFTEN) as oban:
        info = await node(oban)
        assert (info.listener, info.hears) == ("poll", None)


async def test_a_listener_that_hears_nothing_says_so(
    postgresql_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oban.notifier.health.ECHO_TIMEOUT", 0.1)
    elsewhere = render(postgresql_url.set(database="postgres"))
    async with Oban(postgresql_url, queues={"default": 2}, listen_url=elsewhere, **OFTEN) as oban:
        await hears(oban, False)


class Wrong(clock.Clock):
    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_the_clock_of_a_node_is_compared_with_the_database(url: URL) -> None:
    with clock.use(Wrong()):
        async with Oban(url, queues={"default": 2}, **OFTEN) as oban:
            assert (await node(oban)).clock_skew == pytest.approx(3600, abs=5)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_too_many_workers_are_not_listed(url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oban.runner.node_facts.registry", Registry({f"w{n}": Noop for n in range(501)}))
    async with Oban(url, queues={"default": 2}, **OFTEN) as oban:
        assert (await node(oban)).workers is None


METAS: list[Any] = [
    {},
    [],
    "text",
    {"workers": "x", "clock": 5, "listener": [], "version": 1, "pid": True, "lease": "long"},
    {"clock": "yesterday", "listener": {"kind": 1, "hears": "yes"}, "workers": None, "pid": None},
    {"clock": "2026-01-01T00:00:00"},
]


async def test_rows_of_other_implementations_are_nodes_that_tell_nothing(url: URL) -> None:
    ages = (59, 61)
    now = datetime.now(UTC)
    with sync_engine(url).begin() as connection:
        for number, meta in enumerate(METAS):
            for age in ages:
                values = {"uuid": UUID(int=number * 100 + age), "name": "Oban", "node": f"{age} {number}"}
                seen = now - timedelta(seconds=age - 30 if age < 60 else age + 30)
                connection.execute(
                    insert(Producer).values(queue="a", meta=meta, started_at=seen, updated_at=seen, **values)
                )
    async with Oban(url) as oban:
        found = await nodes(oban)
    assert len(found) == len(METAS) * len(ages)
    for info in found:
        told = (info.pid, info.version, info.clock_skew, info.listener, info.hears, info.workers)
        assert told == (None,) * 6
        assert (info.lease, info.alive) == (60.0, info.node.startswith("59"))
        assert [queue.queue for queue in info.queues] == ["a"]
