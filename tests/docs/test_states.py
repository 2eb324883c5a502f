"""`docs/reference/states.md` is the exact state machine: each event is tried in each state, on SQLite."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, update

from oban import JobState, SyncOban
from oban.models import Job, metadata
from tests.docs.snippets import fenced
from tests.support import transitions
from tests.support.reference import PAGES

#: The table of calls has these; with them, the picture could not be read.
NOT_DRAWN = (("retry", "scheduled"), ("delete", None))
PAGE = "docs/reference/states.md"
TEXT = (PAGES / "states.md").read_text()
STATES = [state.value for state in JobState]


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.connect() as connection, connection.begin():
        yield connection
    engine.dispose()


@pytest.fixture(scope="module")
def client(connection: Connection) -> SyncOban:
    return SyncOban(connection)


@pytest.fixture(scope="module")
def observed(connection: Connection, client: SyncOban) -> dict[str, list[transitions.Observed]]:
    """What each form of each event did, in any state."""
    return {
        name: [transitions.observe(connection, client, form, state) for form in forms for state in STATES]
        for name, forms in transitions.EVENTS.items()
    }


def test_the_example_finds_waiting_jobs(connection: Connection, client: SyncOban) -> None:
    names: dict[str, Any] = {}
    (example,) = fenced("docs/reference/states.md", "python")
    exec(example, names)
    with connection.begin_nested() as savepoint:
        waiting, suspended = client.enqueue_many(Job(worker="tests.Nobody"), Job(worker="tests.Nobody"))
        connection.execute(update(Job).where(Job.id == suspended.id).values(state="suspended"))
        assert [job.id for job in client.list_jobs(names["waiting"])] == [waiting.id]
        savepoint.rollback()


def tables(head: str) -> Iterator[tuple[str, ...]]:
    """The cells of the rows of the tables whose first column has this heading."""
    for table in re.findall(rf"^\| {head} \|.*\n\| ---.*\n((?:\|.*\n)+)", TEXT, re.MULTILINE):
        for line in table.splitlines():
            yield tuple(cell.strip() for cell in line.strip("| ").split(" | "))


def test_the_diagrams_have_each_transition_and_its_events(
    observed: dict[str, list[transitions.Observed]], client: SyncOban
) -> None:
    drawn = {
        (start, event, end)
        for diagram in fenced(PAGE, "mermaid")
        for start, end, events in re.findall(r"^ +(\S+) --> (\S+): (.+)$", diagram, re.MULTILINE)
        for event in events.split(", ")
    }
    happened = {
        (start, event, end or "[*]")
        for event, results in observed.items()
        for result in results
        for start, end in result.moves
        if start != end and (event, end) not in NOT_DRAWN
    }
    assert drawn == happened | {("[*]", "enqueue", state) for state in transitions.new_states(client)}


def test_the_tables_of_events_name_the_columns_that_change(
    observed: dict[str, list[transitions.Observed]],
) -> None:
    columns = {column.name for column in Job.__table__.columns}
    events = {cells[0].strip("`"): cells[-1] for cells in tables("event")}
    assert events.pop("enqueue")
    assert events.keys() == observed.keys()
    for event, text in events.items():
        changed = set().union(*(result.columns for result in observed[event])) - {"state"}
        # A retry is tried without these.
        assert {*re.findall(r"`(\w+)`", text)} & columns - {"queue", "priority"} == changed, event


def test_the_table_of_calls_tells_what_each_does_in_each_state(
    connection: Connection, client: SyncOban
) -> None:
    calls = [form for name in ("cancel", "retry", "update", "delete") for form in transitions.EVENTS[name]]
    rows = [cells for cells in tables("state") if len(cells) > 2]
    assert [cells[0].strip("`") for cells in rows] == STATES
    for state, *cells in rows:
        done = [transitions.observe(connection, client, call, state.strip("`")).moves for call in calls]
        shown = [(end or "deleted") for moves in done for _, end in moves or {("", "unchanged")}]
        assert cells == shown, state
