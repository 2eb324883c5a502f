"""Every snippet of `docs/guides/queues.md` runs unchanged and has the documented effect."""

import re
import shlex
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, Oban, SyncOban
from tests.docs.stage import Page, Snippet, Stage
from tests.support.commands import invoke
from tests.support.databases import SQLiteFactory
from tests.support.processes import ROOT
from tests.support.rows import delete_rows, insert_row, lasting_url
from tests.support.waiting import eventually

PAGE = Page("guides/queues.md")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> Iterator[URL]:
    """One database for all tests of this module, emptied for each."""
    yield from lasting_url(request)


@pytest.fixture
async def stage(oban: Oban) -> AsyncIterator[Stage]:
    """The node of the page and another one, both running."""
    await delete_rows(oban.engine)
    async with oban.engine.begin() as connection:
        await connection.execute(text("DELETE FROM oban_queues"))
    stage = Stage(oban)
    stage.names |= {"engine": oban.engine, "Oban": Oban, "Job": Job, "select": select}
    stage.names |= {"AsyncSession": AsyncSession}
    configured = next(found for found in PAGE.snippets if "queues={" in found.code)
    await stage.run(configured)
    other = Oban(oban.engine, node="worker-2", queues={"default": 10, "media": 2})
    async with stage.names["oban"], other:
        stage.names["other"] = other
        yield stage


def seen(stage: Stage, name: str = "oban") -> dict[str, tuple[int | None, bool]]:
    return {info.queue: (info.limit, info.paused) for info in stage.names[name].check_all_queues()}


@PAGE.shows('"media": 2}')
async def test_a_node_runs_the_queues_that_it_is_configured_with(stage: Stage, snippet: Snippet) -> None:
    assert seen(stage) == {"default": (10, False), "media": (2, False)}


@PAGE.shows('"paused": True')
async def test_a_queue_starts_paused(stage: Stage, snippet: Snippet) -> None:
    await stage.names["oban"].stop()
    *steps, resume = snippet.code.splitlines()
    await stage.run(Snippet(snippet.page, snippet.line, "\n".join(steps)))
    async with stage.names["oban"]:
        assert (seen(stage)["media"], seen(stage, "other")["media"]) == ((2, True), (2, False))
        await stage.run(Snippet(snippet.page, snippet.line, resume))
        assert seen(stage)["media"] == (2, False)


@PAGE.shows("pause_all_queues()")
async def test_queues_are_paused_and_resumed(stage: Stage, snippet: Snippet) -> None:
    *steps, _ = snippet.code.splitlines()
    expected = [(True, True), (False, False), (True, False), (True, True)]
    for step, (here, elsewhere) in zip(steps, expected, strict=True):
        await stage.run(Snippet(snippet.page, snippet.line, step))
        assert seen(stage)["media"] == (2, here)
        await eventually(lambda: seen(stage, "other")["media"] == (2, elsewhere))  # noqa: B023
    await stage.run(snippet)
    assert seen(stage) == {"default": (10, False), "media": (2, False)}


@PAGE.shows('scale_queue("default", None)')
async def test_a_queue_is_scaled(stage: Stage, snippet: Snippet) -> None:
    steps = snippet.code.splitlines()
    for step, here, elsewhere in zip(steps, (25, 50, 10), (25, 25, 10), strict=True):
        await stage.run(Snippet(snippet.page, snippet.line, step))
        assert seen(stage)["default"] == (here, False)
        await eventually(lambda: seen(stage, "other")["default"] == (elsewhere, False))  # noqa: B023


@PAGE.shows('stop_queue("media")')
async def test_queues_are_started_and_stopped(stage: Stage, snippet: Snippet) -> None:
    await stage.run(snippet)
    started = {"default": (10, False), "reports": (4, False), "imports": (1, True)}
    await eventually(lambda: seen(stage) == started)
    await eventually(lambda: seen(stage, "other") == {"default": (10, False), "reports": (4, False)})


@PAGE.shows("session=session")
async def test_it_takes_part_in_the_callers_transaction(stage: Stage, snippet: Snippet) -> None:
    await stage.oban.pause_queue("media")
    await stage.set("scheduled", queue="media")
    await stage.oban.resume_queue("media")
    await stage.run(snippet)
    await eventually(lambda: seen(stage)["media"] == (2, True))
    assert await stage.states() == ["cancelled"] * 3


@PAGE.shows("oban.check_queue(")
async def test_a_node_reports_its_queues(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("10 False () 20")
    assert rest == ["default 0", "media 0"]


@PAGE.shows("oban.check_cluster(")
async def test_a_client_reports_the_queues_of_all_nodes(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.run(snippet)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:4] for line in lines] == [[f"worker-{n}", "10", "False", "()"] for n in (1, 2)]


@PAGE.shows("oban.list_queue_settings(")
async def test_stored_settings_are_listed(
    stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]
) -> None:
    await stage.oban.pause_queue("media")
    await stage.oban.scale_queue("default", 50, node="worker-1")
    await stage.run(snippet)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:5] for line in lines] == [
        ["default", "worker-1", "None", "50", "None"],
        ["media", "None", "None", "None", "True"],
    ]


@PAGE.shows("oban.count_jobs(")
async def test_jobs_are_counted(stage: Stage, snippet: Snippet, capsys: pytest.CaptureFixture[str]) -> None:
    await stage.set("completed", "completed", "cancelled", job="scheduled")
    await insert_row(stage.oban.engine, "completed", queue="media", worker="app.Resize")
    await stage.run(snippet)
    assert capsys.readouterr().out.splitlines() == ["0 2", "1"]


#: The rows of the table: the commands, and whether `media` runs here and elsewhere, and `default` likewise.
COMMANDS = [
    ("pause `media` on `worker-1`; resume `media`", (True, True, True, True)),
    ("pause `media`; resume `media` on `worker-1`", (True, False, True, True)),
    ("pause all; resume `media`", (True, True, False, False)),
    ("resume `media`; pause all", (False, False, False, False)),
    ("pause all; resume all on `worker-1`", (True, False, True, False)),
]


@pytest.mark.parametrize(("commands", "running"), COMMANDS)
async def test_the_most_recent_command_wins(stage: Stage, commands: str, running: tuple[bool, ...]) -> None:
    PAGE.says(f"| {commands} |")
    for command in commands.replace("`", "").split("; "):
        action, queue, *on = command.split()
        node = on[1] if on else None
        if queue == "all":
            await getattr(stage.oban, f"{action}_all_queues")(node=node)
        else:
            await getattr(stage.oban, f"{action}_queue")(queue, node=node)

    def runs() -> tuple[bool, ...]:
        return tuple(
            not seen(stage, at)[queue][1] for queue in ("media", "default") for at in ("oban", "other")
        )

    await eventually(lambda: runs() == running)


def test_commands_do_what_the_page_says(
    sqlite_factory: SQLiteFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sqlite_factory.create()
    monkeypatch.setenv("OBAN_DATABASE_URL", made.render_as_string(hide_password=False))
    client = SyncOban(made.set(drivername="sqlite"))
    rows = re.findall(
        r"^\| (`oban queues .*`) \| (`.*`) \|$", (ROOT / "docs/guides/queues.md").read_text(), re.MULTILINE
    )
    assert len(rows) == 7

    def stored() -> list[tuple[Any, ...]]:
        entries = client.list_queue_settings()
        return [(row.queue, row.node, row.running, row.limit, row.paused) for row in entries]

    for commands, calls in rows:
        pairs = zip(re.findall("`(.*?)`", commands), re.findall("`(.*?)`", calls), strict=True)
        for command, call in pairs:
            client.resume_all_queues()
            client.stop_queue("media")
            result = invoke(*shlex.split(command)[1:], *["--yes"] * ("--all" in command))
            assert result.exit_code == 0, result.output
            after = stored()
            client.resume_all_queues()
            client.stop_queue("media")
            eval(f"client.{call}", {"client": client})
            assert stored() == after, command
    sqlite_factory.drop(made)


def test_every_snippet_is_run_by_a_test() -> None:
    assert sorted(PAGE.shown, key=lambda snippet: snippet.line) == PAGE.snippets
