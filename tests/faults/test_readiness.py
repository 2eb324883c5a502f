"""A node is not ready while its server is stopped, crashed or silent, and ready again soon after."""

import asyncio

import pytest
from sqlalchemy import URL

from oban import JobState, NodeCheck, Oban
from oban.runner import node_check
from tests.faults.proxy import Proxy
from tests.support.database_server import Server
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import eventually
from tests.support.workers import Noop

pytestmark = pytest.mark.slow

READY = NodeCheck(True, True)
SILENT = "the database does not answer for more than 1 s"
STALE = "the last heartbeat is older than three quarters of the lease"


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a database as silent after 1 s instead of 5 s."""
    monkeypatch.setattr(node_check, "DATABASE_GRACE", 1.0)


async def is_unready(oban: Oban, problem: str) -> None:
    def found() -> bool:
        check = oban.check_node()
        # Only a blocked event loop would be a reason to restart the node.
        assert check.is_live
        return not check.is_ready and any(problem in text for text in check.problems)

    await eventually(found, 40)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_node_is_not_ready_while_its_server_is_stopped(
    server: Server, server_url: URL, driver: str, mode: str
) -> None:
    url = server_url.set(drivername=f"postgresql+{driver}")
    async with Oban(url, queues={"default": 2}, lease=3.0, **BRIEF) as oban:
        await eventually(lambda: oban.check_node() == READY)
        await asyncio.to_thread(server.stop, mode)
        await is_unready(oban, SILENT)
        await is_unready(oban, STALE)
        await asyncio.to_thread(server.start)
        await eventually(lambda: oban.check_node() == READY, 20)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_node_is_not_ready_while_the_network_drops_packets(server_url: URL, driver: str) -> None:
    url = server_url.set(drivername=f"postgresql+{driver}")
    async with (
        Proxy(url) as proxy,
        Oban(proxy.through(url), queues={"default": 2}, lease=2.0, statement_timeout=0.5, **BRIEF) as oban,
    ):
        await eventually(lambda: oban.check_node() == READY)
        proxy.flowing.clear()
        await is_unready(oban, SILENT)
        proxy.flowing.set()
        await eventually(lambda: oban.check_node() == READY, 20)
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)


async def test_a_restart_of_the_server_does_not_make_a_node_unready(server: Server, server_url: URL) -> None:
    checks: set[NodeCheck] = set()
    async with Oban(server_url, queues={"default": 2}, **BRIEF) as oban:
        await eventually(lambda: oban.check_node() == READY)
        restarting = asyncio.create_task(asyncio.to_thread(server.crash_restart))
        while not restarting.done():
            checks.add(oban.check_node())
            await asyncio.sleep(0.02)
        await restarting
        await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
        checks.add(oban.check_node())
    assert checks == {READY}
