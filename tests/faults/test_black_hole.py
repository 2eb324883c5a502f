"""A network that drops every packet, so there are neither answers nor errors."""

import asyncio
import contextlib
import threading
import time

import pytest
from sqlalchemy import URL, text

from oban import Oban
from oban.database.aio import Database
from oban.database.transaction import Transaction
from oban.runner import runner as runner_module
from tests.faults.proxy import Proxy
from tests.support.waiting import eventually, within
from tests.support.workers import Runs

pytestmark = pytest.mark.slow


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def tasks() -> list[str]:
    return [name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("oban")]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("silent", [0.0, 1.5], ids=["at once", "later"])
async def test_a_node_stops_in_time_and_leaves_nothing_when_the_network_drops_packets(
    server_url: URL, driver: str, silent: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "SHUTDOWN_TIMEOUT", 2.0)
    runs = Runs()
    url = server_url.set(drivername=f"postgresql+{driver}")
    async with Proxy(url) as proxy:
        oban = Oban(
            proxy.through(url), queues={"a": 1, "b": 1}, shutdown_grace_period=0.2, heartbeat_interval=0.5
        )
        await oban.start()
        await oban.enqueue(runs.worker.new(queue="a"))
        await runs.begun(1)
        proxy.flowing.clear()
        # How long the network is silent before the stop: the node notices before it, or does not.
        await asyncio.sleep(silent)
        since = time.monotonic()
        await within(oban.stop(), 30)
        assert time.monotonic() - since < 5
        assert not [name for name in threads() if name.startswith("oban")]
        if driver == "asyncpg":
            await eventually(lambda: not tasks())
    # On a busy machine, psycopg can keep its socket open for as long as the proxy exists.
    await eventually(lambda: not tasks())


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_read_times_out_although_its_rollback_gets_no_answer(server_url: URL, driver: str) -> None:
    url = server_url.set(drivername=f"postgresql+{driver}")
    async with Proxy(url) as proxy:
        database = Database(proxy.through(url))
        database.timeout = 0.5

        def look(tx: Transaction) -> None:
            tx.execute(text("SELECT 1"))
            proxy.flowing.clear()

        since = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await within(database.read(look), 20)
        assert time.monotonic() - since < 10
        proxy.flowing.set()
        await database.dispose()
