"""The stream that tells open pages when to refresh, and the sample behind it."""

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession
from sse_starlette import ServerSentEvent

from oban import Oban
from oban.errors import DatabaseUnavailable
from oban.models import Job
from oban.repository.stats import Stats
from oban.types import JobState
from oban.web import dashboard, live, sampler
from oban.web.live import Live
from oban.web.sessions import Sessions
from tests.support.waiting import eventually, within
from tests.support.web import Visitor


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (live, sampler):
        monkeypatch.setattr(module, "INTERVAL", 0.02)
    monkeypatch.setattr(sampler, "DUTY", 1.0)


class Reads:
    """Counts the samples that are read, and can make them fail."""

    def __init__(self, oban: Oban, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.fails = 0, False
        self._stats = oban.stats
        monkeypatch.setattr(oban, "stats", self.read)

    async def read(self, *args: object, **options: object) -> Stats:
        self.count += 1
        if self.fails:
            raise OperationalError("SELECT", {}, Exception("no connection"))
        return await self._stats(*args, **options)  # type: ignore[arg-type]


@pytest.fixture
def reads(oban: Oban, monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(oban, monkeypatch)


@pytest.fixture
async def stream(oban: Oban, reads: Reads) -> AsyncIterator[Live]:
    sessions = Sessions(oban)
    made = Live(oban, sessions)
    yield made
    await made.close()
    await sessions.close()


async def next_event(events: AsyncIterator[ServerSentEvent]) -> tuple[str | None, object]:
    event = await within(anext(events))
    return event.event, orjson.loads(event.data) if event.data else None


async def test_a_change_makes_pages_refresh_and_tells_how_many_jobs_failed_in_an_hour(
    oban: Oban, stream: Live
) -> None:
    events = stream.events()
    assert (await next_event(events))[0] is None
    assert await next_event(events) == ("refresh", {"failed": 0})
    failed = Job(worker="w")
    failed.state = JobState.DISCARDED
    failed.discarded_at = (await oban.stats()).at
    async with AsyncSession(oban.engine) as session:
        session.add(failed)
        await session.commit()
    assert await next_event(events) == ("refresh", {"failed": 1})
    await events.aclose()


async def test_a_page_refreshes_now_and_then_although_nothing_has_changed(
    stream: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LONGEST", 0.05)
    events = stream.events()
    await anext(events)
    assert [(await next_event(events))[0] for _ in range(3)] == ["refresh"] * 3
    await events.aclose()


async def test_nothing_is_read_while_no_page_is_open(stream: Live, reads: Reads) -> None:
    events = stream.events()
    await anext(events)
    await eventually(lambda: reads.count > 2)
    await events.aclose()
    assert stream.streams == 0
    await eventually(lambda: len(_watchers()) == 0)
    before = reads.count
    await stream.sample(max_age=60.0)
    assert reads.count == before


async def test_a_page_that_opens_after_all_were_closed_gets_events_again(stream: Live) -> None:
    for _ in range(2):
        events = stream.events()
        await anext(events)
        await stream.sample()
        await events.aclose()
    events = stream.events()
    await anext(events)
    await eventually(lambda: len(_watchers()) == 1)
    await events.aclose()


async def test_many_pages_share_one_reader(stream: Live, reads: Reads) -> None:
    opened = [stream.events() for _ in range(300)]
    for events in opened:
        await anext(events)
    assert len(_watchers()) == 1
    await asyncio.gather(*(events.aclose() for events in opened))


def test_many_pages_refresh_less_often(stream: Live) -> None:
    assert stream.pause == sampler.INTERVAL
    stream.streams = 200
    assert stream.pause == 200 / live.PER_SECOND


async def test_requests_at_the_same_time_share_one_sample(stream: Live, reads: Reads) -> None:
    found = await asyncio.gather(*(stream.sample() for _ in range(50)))
    assert reads.count == 1
    assert len({id(each) for each in found}) == 1


async def test_a_client_that_goes_away_does_not_take_the_sample_from_the_others(
    stream: Live, reads: Reads
) -> None:
    first = asyncio.create_task(stream.sample())
    second = asyncio.create_task(stream.sample())
    await asyncio.sleep(0)
    first.cancel()
    assert (await within(second)).counts["available"] == 0
    assert reads.count == 1


def test_a_sample_that_takes_long_is_used_for_longer(oban_stats: Stats) -> None:
    slow = sampler.LiveSample(oban_stats, seconds=0.3)
    assert slow.pause == pytest.approx(0.3 / sampler.DUTY)
    assert sampler.LiveSample(oban_stats, seconds=100.0).pause == sampler.MAX_PAUSE


@pytest.fixture
async def oban_stats(oban: Oban) -> Stats:
    return await oban.stats(count_limit=10)


async def test_streams_say_that_the_database_is_away_and_recover(
    stream: Live, reads: Reads, caplog: pytest.LogCaptureFixture
) -> None:
    events = stream.events()
    await anext(events)
    assert (await next_event(events))[0] == "refresh"
    reads.fails = True
    assert await next_event(events) == ("unavailable", {})
    with pytest.raises((OperationalError, DatabaseUnavailable)):
        await stream.sample(max_age=0.0)
    reads.fails = False
    assert (await next_event(events))[0] == "refresh"
    assert [record.name for record in caplog.records].count("oban.web") == 1
    await events.aclose()


async def test_the_end_of_the_dashboard_ends_all_streams(stream: Live) -> None:
    opened = [stream.events() for _ in range(3)]
    for events in opened:
        await anext(events)

    async def rest(events: AsyncIterator[ServerSentEvent]) -> None:
        async for _ in events:
            pass

    reading = [asyncio.create_task(rest(events)) for events in opened]
    await stream.close()
    await within(asyncio.gather(*reading))
    assert stream.streams == 0
    assert stream.is_full


async def test_a_server_that_stops_ends_all_streams(stream: Live) -> None:
    events = stream.events()
    await anext(events)
    # What sse-starlette does first when uvicorn gets a signal.
    stream.server_stops.set()

    async def rest() -> None:
        async for _ in events:
            pass

    await within(rest())
    assert stream.is_full
    assert stream.streams == 0


async def test_a_stream_ends_after_a_while_so_that_access_is_checked_again(
    stream: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LIFETIME", 0.05)
    assert len([event async for event in stream.events()]) >= 1


async def test_a_dashboard_without_streams_tells_pages_to_poll(oban: Oban) -> None:
    app = dashboard(oban, live=False)
    async with Visitor(app) as visitor:
        assert (await visitor.get("/events")).status_code == 204
        page = await visitor.page("/")
        assert page.css_first("html").attributes["data-live"] == "poll"  # type: ignore[union-attr]
    await app.aclose()


def _watchers() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if "Live._run" in repr(task.get_coro()) and not task.done()]
