"""`docs/guides/telemetry.md`: its tables have every event with its fields, and its snippets run unchanged."""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Discard, Job, JobState, Oban, Worker, telemetry
from oban.telemetry import EVENTS, Event, JobEnded
from oban.testing import drain_queue
from tests.docs.stage import Page, Snippet, Stage
from tests.support.jobs import reaches
from tests.support.options import BRIEF
from tests.support.waiting import within

PAGE = Page("guides/telemetry.md")


class Report(Worker):
    async def process(self, job: Job) -> None:
        if job.args.get("broken"):
            raise Discard("no such report")


@pytest.fixture
def url(sqlite_url: URL) -> URL:
    """A database on SQLite, as events do not depend on it."""
    return sqlite_url


@pytest.fixture
def stage(oban: Oban) -> Stage:
    return Stage(oban, {"Report": Report, "Oban": Oban})


@pytest.fixture(autouse=True)
def detached(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Detach what a snippet attaches to all clients."""
    attached: list[Callable[[], None]] = []
    attach = telemetry.attach

    def remember(*args: Any) -> Callable[[], None]:
        attached.append(attach(*args))
        return attached[-1]

    monkeypatch.setattr(telemetry, "attach", remember)
    yield
    for detach in attached:
        detach()


def described(event: type[Event]) -> str:
    """What the docstring of an event says before it lists the attributes."""
    return " ".join(inspect.cleandoc(event.__doc__ or "").partition("Attributes:")[0].split())


def test_the_tables_have_each_event_with_its_description_and_its_fields() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", PAGE.text.partition("## Events")[2], re.MULTILINE)
    assert [name for name, _, _ in rows] == [event.__name__ for event in EVENTS]
    for event, (_, description, listed) in zip(EVENTS, rows, strict=True):
        names = [field.name for field in fields(event) if field.name not in ("instance", "node")]
        assert (description, re.findall(r"`(\w+)`", listed)) == (described(event), names)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_the_docstring_of_an_event_describes_each_field(event: type[Event]) -> None:
    inherited = [inspect.getdoc(base) or "" for base in event.__mro__[:-1]]
    listed = set()
    for text in inherited:
        for line in re.findall(r"^    (\w[\w, ]*): ", text.partition("Attributes:")[2], re.MULTILINE):
            listed |= set(line.split(", "))
    assert {field.name for field in fields(event)} == listed


@PAGE.shows("failures = Counter")
async def test_failures_are_counted_until_the_handler_is_detached(stage: Stage, snippet: Snippet) -> None:
    class Fails(Worker, max_attempts=1):
        async def process(self, job: Job) -> None:
            raise ValueError("no luck")

    await stage.run(snippet)
    await stage.oban.enqueue_many([Fails.new(), Report.new()])
    await drain_queue(with_safety=True)
    assert stage.names["failures"] == {Fails.worker_name: 1}
    stage.names["detach"]()
    assert not stage.oban.telemetry.wants(JobEnded)


@PAGE.shows("def report(event")
async def test_failures_of_services_of_all_clients_are_reported(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    error = {"error": "no route", "error_type": "builtins.OSError"}
    Oban(stage.oban.engine, name="later", node="n").telemetry.emit(telemetry.HeartbeatFailed, **error)
    assert capsys.readouterr().out == "later on n: builtins.OSError: no route\n"


@PAGE.shows("call_soon_threadsafe")
async def test_events_are_handed_over_to_a_task(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    node = Oban(stage.oban.engine, queues={"default": 1}, **BRIEF)
    # The leader can be elected before the node has started to its end.
    assert await within(stage.names["observe"](node)) in (["NodeStarted"], [])


@PAGE.shows("tenant.set")
async def test_workers_see_the_context_that_a_handler_has_set(stage: Stage, snippet: Snippet) -> None:
    seen: list[str] = []

    class Sees(Worker):
        def process(self, job: Job) -> None:
            seen.append(stage.names["tenant"].get())

    await stage.run(snippet)
    await stage.oban.enqueue_many([Sees.new(meta={"tenant": "acme"}), Sees.new()])
    await drain_queue()
    assert sorted(seen) == ["acme", "nobody"]


@PAGE.shows("audit: list")
async def test_changes_are_audited(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    oban = stage.oban
    await oban.cancel_job(await oban.enqueue(Report.new()))
    await oban.scale_queue("default", 5)
    await oban.pause_queue("default", node="one")
    assert stage.names["audit"] == [
        "JobsCancelled: 1",
        "scale default on all nodes",
        "pause default on one",
    ]


@PAGE.shows("async def test_each_attempt")
async def test_the_test_on_the_page_passes(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    await stage.names["test_each_attempt_is_told"](stage.oban)


async def test_a_job_tells_what_the_page_says(oban: Oban) -> None:
    PAGE.says("`state` of a `JobEnded` is the state that the attempt decides on")
    events: list[JobEnded] = []
    oban.telemetry.attach(events.append, JobEnded)
    job = await oban.enqueue(Report.new({"broken": True}))
    await drain_queue(with_safety=True)
    assert events[0].state == (await reaches(oban, job, JobState.DISCARDED)).state


def test_every_snippet_of_the_page_is_run() -> None:
    assert PAGE.shown == PAGE.snippets
