"""The classes of events: all are in the catalog, are emitted with their fields, and can be pickled."""

import ast
import pickle
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import pytest

from oban import Job, telemetry
from oban.telemetry import EVENTS, DashboardEvent, Event, JobEvent, JobsChanged, JobView, QueueEvent
from oban.testing import process_job
from tests.support.processes import ROOT
from tests.support.telemetry import Recorder
from tests.support.workers import Noop

BASES = {DashboardEvent, Event, JobEvent, JobsChanged, QueueEvent}


def exported() -> set[type[Event]]:
    classes = (getattr(telemetry, name) for name in telemetry.__all__)
    return {one for one in classes if isinstance(one, type) and issubclass(one, Event)}


def emitted() -> Iterator[tuple[str, set[str], str]]:
    """Each call of `emit` in the library with a class of events: its name, its keywords and its place."""
    for path in sorted((ROOT / "oban").rglob("*.py")):
        text = path.read_text()
        # Most modules need not be parsed.
        for node in ast.walk(ast.parse(text)) if "emit(" in text else ():
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "emit" and node.args:
                keywords = {keyword.arg or "**" for keyword in node.keywords}
                name = ast.unparse(node.args[0]).rpartition(".")[2]
                yield name, keywords, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_the_catalog_has_each_event_that_the_package_exports_once() -> None:
    assert len(EVENTS) == len(set(EVENTS))
    assert exported() == set(EVENTS) | BASES


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_an_event_is_a_frozen_dataclass_that_can_be_compared_and_pickled(event: type[Event]) -> None:
    assert is_dataclass(event)
    values = {field.name: f"{field.name} of the event" for field in fields(event)}
    one, other = event(**values), event(**{**values, "node": "another"})
    assert pickle.loads(pickle.dumps(one)) == one != other
    assert len({one, event(**values), other}) == 2
    with pytest.raises(AttributeError):
        one.node = "changed"  # type: ignore[misc]


def test_every_call_of_emit_has_the_fields_of_its_event() -> None:
    known = {event.__name__: {field.name for field in fields(event)} for event in EVENTS}
    errors = {"error", "error_type"}
    wrong = []
    for name, keywords, place in emitted():
        wanted = known.get(name, set()) - {"instance", "node"}
        got = (keywords - {"**"}) | (errors if "**" in keywords else set())
        # A name in lower case is a variable with one of several classes, which have the same fields.
        if name[0].isupper() and wanted != got:
            wrong.append((place, name, wanted ^ got))
    assert wrong == []


def test_the_library_uses_every_event() -> None:
    names = {event.__name__ for event in EVENTS}
    used = {
        node.id
        for path in (ROOT / "oban").rglob("*.py")
        if path.parent.name not in ("otel", "prometheus") and any(name in path.read_text() for name in names)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    assert names - used == set()


async def test_a_pickled_view_has_no_redacted_values() -> None:
    recorder = Recorder()
    detach = telemetry.attach(recorder, telemetry.JobStarted)
    try:
        await process_job(
            Job(worker=Noop.worker_name, args={"token": "hunter22"}, meta={"redact": ["token"]})
        )
    finally:
        detach()
    (event,) = recorder.of(telemetry.JobStarted)
    pickled = pickle.dumps(event)
    assert b"hunter22" not in pickled
    assert pickle.loads(pickled) == event
    assert isinstance(event.job, JobView)
    assert event.job.args == {"token": "[redacted]"}
    assert event.job != "another"
