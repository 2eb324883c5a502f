"""Stopping under difficulties: an interruption, a concurrent start, an event loop that has ended."""

import asyncio
import contextvars
import sys

import pytest
from sqlalchemy import URL, select

from oban import Job, JobState, Oban, Worker
from oban.models import Producer
from oban.runner.heartbeat_thread import HeartbeatThread
from oban.runner.services.base import Service
from tests.support.internals import is_running
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import eventually, within
from tests.support.workers import Noop, Runs

pytestmark = pytest.mark.either_driver

tenant = contextvars.ContextVar("tenant", default="nobody")


def our_tasks() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("oban-")]


class Hanging(Service):
    """Its tick runs until it is cancelled."""

    began = False

    async def tick(self) -> float | None:
        self.began = True
        await asyncio.Event().wait()
        return None


async def test_a_service_whose_stop_is_interrupted_still_ends() -> None:
    service = Hanging("hanging", 1.0)
    await service.start()
    await eventually(lambda: service.began)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(service.stop(30), 0.05)
    await eventually(lambda: "oban-hanging" not in our_tasks())


async def test_a_stop_that_was_interrupted_does_not_prevent_the_next_one(url: URL) -> None:
    runs = Runs()
    oban = Oban(url, queues={"default": 2}, shutdown_grace_period=20)
    await oban.start()
    await oban.enqueue(runs.worker.new())
    await runs.begun(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(oban.stop(), 0.05)
    runs.finish(1)
    await eventually(lambda: not is_running(oban))
    await oban.start()
    await reaches(oban, await oban.enqueue(Noop.new()), JobState.COMPLETED)
    await oban.stop()
    assert not is_running(oban)
    assert our_tasks() == []


async def test_a_queue_that_is_started_while_the_node_stops_leaves_nothing(
    url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, written, go_on = HeartbeatThread.send, asyncio.Event(), asyncio.Event()

    async def slow_send(heartbeats: HeartbeatThread) -> None:
        await send(heartbeats)
        written.set()
        await go_on.wait()

    async with Oban(url, name="client") as client:
        oban = Oban(url, queues={"default": 1}, **BRIEF)
        await oban.start()
        monkeypatch.setattr(HeartbeatThread, "send", slow_send)
        starting = asyncio.create_task(oban.start_queue("extra"))
        await within(written.wait(), 10)
        await within(oban.stop(), 20)
        go_on.set()
        await within(starting, 10)
        await eventually(lambda: our_tasks() == [])
        async with client.engine.connect() as connection:
            assert (await connection.execute(select(Producer.uuid))).all() == []


async def test_jobs_do_not_see_the_context_of_the_call_that_started_their_queue(url: URL) -> None:
    seen: list[str] = []

    class Looks(Worker):
        async def process(self, job: Job) -> None:
            seen.append(tenant.get())
            tenant.set("a job")

    async def request(oban: Oban) -> None:
        tenant.set("a request")
        await oban.start_queue("extra", 1)

    tenant.set("the application")
    async with Oban(url, queues={"default": 1}, **BRIEF) as oban:
        await asyncio.create_task(request(oban))
        for _ in range(2):
            await reaches(oban, await oban.enqueue(Looks.new(queue="extra")), JobState.COMPLETED)
        await reaches(oban, await oban.enqueue(Looks.new()), JobState.COMPLETED)
    assert seen == ["the application"] * 3


#: An application that forgets to stop. It prints the background threads that are left after some time.
FORGETS = """
import asyncio, os, sys, threading, time
from oban import Oban

async def application():
    await Oban(sys.argv[1], queues={"default": 1}, heartbeat_interval=0.2, lease=20.0).start()

asyncio.run(application())
until = time.monotonic() + 60
while left := {"oban-refresher", "oban-watchdog"} & {thread.name for thread in threading.enumerate()}:
    if time.monotonic() > until:
        break
    time.sleep(0.01)
print(*left, "left")
sys.stdout.flush()
os._exit(0)
"""


async def test_background_threads_end_with_an_event_loop_that_ended_without_a_stop(url: URL) -> None:
    # In another process, as this application leaves connections open.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FORGETS, url.render_as_string(hide_password=False)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await within(process.communicate(), 30)
    assert output.decode().strip() == "left", errors.decode()
    assert errors.decode().count("has ended without a stop") == 1


#: An application whose event loop is closed while middleware runs around a job in a thread.
CLOSES_ITS_LOOP = """
import asyncio, sys
from oban import Oban, Worker
from oban.runner.execution import thread_run

thread_run.LOOP_CHECK_INTERVAL = 0.01

class Plain(Worker):
    def process(self, job):
        pass

async def application():
    begun = asyncio.Event()

    async def waits(job, call_next):
        begun.set()
        await asyncio.Event().wait()

    oban = Oban(sys.argv[1], queues={"default": 1}, middleware=[waits])
    await oban.start()
    await oban.enqueue(Plain.new())
    await begun.wait()

loop = asyncio.new_event_loop()
loop.run_until_complete(application())
loop.close()
"""


async def test_a_job_in_a_thread_does_not_outlive_an_event_loop_that_was_closed(postgresql_url: URL) -> None:
    # On SQLite, threads of the driver can keep Python from ending, too.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CLOSES_ITS_LOOP, postgresql_url.render_as_string(hide_password=False)),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await within(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
