"""The page of periodic entries tells when each is due and how its jobs went, and changes them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from oban import Job, Oban, Periodic, Worker
from oban.models import Tick
from oban.web import Access, cron_words, dashboard
from tests.support.rows import insert_rows, row
from tests.support.web import Visitor

NIGHTLY = Periodic("night/ly?", "30 2 * * mon-fri", Job(worker="app.Report", args={"kind": "secret-kind"}))


class Sealed(Worker[Any], redact=["token"]):
    """A worker with an arg that pages do not show."""

    async def process(self, job: Job) -> None:
        """Do nothing."""


@pytest.fixture
async def entry(oban: Oban) -> str:
    """The name of an entry that was added at run time."""
    await oban.add_periodic(NIGHTLY)
    return NIGHTLY.name


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("30 2 * * mon-fri", "At 02:30 on Monday through Friday"),
        ("@hourly", "At the start of every hour"),
        ("@Daily", "At 00:00 every day"),
        ("@reboot", "Once when the first node starts"),
        ("*/5 * * * *", "Every fifth minute of every hour"),
        ("0 9 * * 5#3", "At 09:00 on the third Friday of the month"),
        ("0 9 L * *", "At 09:00 on the last day of every month"),
        ("*/90 * * * *", None),
        ("nonsense", None),
    ],
)
def test_expressions_are_told_in_words(expression: str, words: str | None) -> None:
    assert cron_words.words(expression) == words


async def test_entries_are_listed_with_their_words_and_next_time(visitor: Visitor, entry: str) -> None:
    [tr] = (await visitor.page("/periodic")).css("table.periodic tbody tr")
    assert "At 02:30 on Monday through Friday" in tr.text()
    assert len(tr.css("time")) == 1


async def test_the_history_has_a_bar_for_each_tick_that_links_to_its_job(
    oban: Oban, visitor: Visitor, entry: str
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ids = await insert_rows(
        oban.engine,
        *(row(state, meta={"cron_name": entry}) for state in ("completed", "discarded", "executing")),
    )
    ticks = [
        {"name": "Oban", "entry": entry, "tick": now - timedelta(days=n), "job_id": id_, "inserted_at": now}
        for n, id_ in enumerate([*ids, 10**9, *([None] * 40)])
    ]
    async with oban.engine.begin() as connection:
        await connection.execute(insert(Tick), ticks)
    page = await visitor.page("/periodic")
    assert len(page.css("svg.bars rect")) == 24
    links = [link.attributes["href"] for link in page.css("svg.bars a")]
    assert links == [f"/jobs/{id_}" for id_ in reversed(ids)]
    one = await visitor.page(f"/periodic/one?name={entry.replace('?', '%3F')}")
    assert len(one.css("table.runs tbody tr")) == 24


async def test_an_entry_is_paused_resumed_and_run(oban: Oban, visitor: Visitor, entry: str) -> None:
    for action, paused in (("pause", True), ("resume", False)):
        assert (await visitor.post(f"/periodic/{action}", {"name": entry})).status_code == 303
        [info] = await oban.list_periodic()
        assert info.paused is paused
    response = await visitor.post("/periodic/run", {"name": entry})
    [job] = await oban.list_jobs()
    assert response.headers["location"] == f"/jobs/{job.id}"
    assert job.meta["cron_name"] == entry


async def test_the_form_changes_what_was_changed_in_it(oban: Oban, visitor: Visitor, entry: str) -> None:
    form = {"name": entry, "expression": "0 4 * * *", "timezone": "Europe/Berlin", "window": "3600"}
    preview = await visitor.post("/periodic/edit", {**form, "preview": "1"})
    assert "At 04:00 every day" in preview.text
    assert preview.text.count("04:00 CE") == 5
    assert (await oban.list_periodic())[0].override == {}
    assert (await visitor.post("/periodic/edit", form)).status_code == 303
    [info] = await oban.list_periodic()
    assert info.override == {"expression": "0 4 * * *", "timezone": "Europe/Berlin"}
    assert (await visitor.post("/periodic/reset", {"name": entry})).status_code == 303
    assert (await oban.list_periodic())[0].override == {}


@pytest.mark.either_database
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expression", "61 * * * *"),
        ("timezone", "Mars/Olympus"),
        ("catch_up", "some"),
        ("window", "-1"),
        ("priority", "ten"),
        ("priority", "17"),
        ("queue", "a/b"),
        ("args", "[1]"),
        ("args", "{"),
    ],
)
async def test_a_wrong_value_is_told_at_its_field(
    oban: Oban, visitor: Visitor, entry: str, field: str, value: str
) -> None:
    response = await visitor.post("/periodic/edit", {"name": entry, field: value})
    assert response.status_code == 422
    assert f'id="field-{field}-problem"' in response.text
    assert (await oban.list_periodic())[0].override == {}


async def test_an_entry_is_added_and_deleted(oban: Oban, visitor: Visitor) -> None:
    form = {"name": "hourly", "worker": "app.Hourly", "expression": "@hourly", "args": '{"n": 1}'}
    assert (await visitor.post("/periodic/new", form)).status_code == 303
    [info] = await oban.list_periodic()
    assert (info.name, info.expression, info.args, info.source) == ("hourly", "@hourly", {"n": 1}, "runtime")
    assert (await visitor.post("/periodic/new", form)).status_code == 422
    assert (await visitor.post("/periodic/delete", {"name": "hourly"})).status_code == 303
    assert await oban.list_periodic() == []


async def test_hidden_args_are_neither_shown_nor_changed(oban: Oban, entry: str) -> None:
    access = Access(user="ada", permissions=["manage_periodic"], hidden=["args"])
    app = dashboard(oban, authorize=lambda _: access)
    async with Visitor(app) as visitor:
        for path in ("/periodic", "/periodic/one", "/periodic/edit"):
            response = await visitor.http.get(path, params={"name": entry})
            assert response.status_code == 200
            assert "secret-kind" not in response.text
        await visitor.post("/periodic/edit", {"name": entry, "args": "{}", "priority": "3"})
    await app.aclose()
    [info] = await oban.list_periodic()
    assert (info.args, info.priority) == ({"kind": "secret-kind"}, 3)


async def test_a_user_without_the_permission_changes_nothing(oban: Oban, entry: str) -> None:
    app = dashboard(oban, authorize=lambda _: Access.read_only("ada"))
    async with Visitor(app) as visitor:
        for action in ("pause", "resume", "run", "edit", "new", "reset", "delete"):
            assert (await visitor.post(f"/periodic/{action}", {"name": entry})).status_code == 403
        assert (await visitor.get("/periodic/new")).status_code == 403
        assert not (await visitor.page("/periodic")).css("main form[method=post]")
    await app.aclose()
    assert await oban.list_jobs() == []


async def test_an_entry_that_does_not_exist_is_not_found(visitor: Visitor) -> None:
    assert (await visitor.get("/periodic/one?name=none")).status_code == 404
    assert (await visitor.post("/periodic/pause", {"name": "none"})).status_code == 303
    assert "Nothing was changed" in (await visitor.get("/periodic")).text


@pytest.mark.either_database
async def test_redacted_args_are_neither_in_the_form_nor_changed(oban: Oban, visitor: Visitor) -> None:
    args = {"token": "hunter2", "kind": "daily"}
    await oban.add_periodic(Periodic("sealed", "@daily", Sealed.new(args)))
    for path in ("/periodic/one", "/periodic/edit"):
        response = await visitor.http.get(path, params={"name": "sealed"})
        assert response.status_code == 200
        assert "hunter2" not in response.text
    form = {"name": "sealed", "args": "{}", "priority": "4"}
    assert (await visitor.post("/periodic/edit", form)).status_code == 303
    [info] = await oban.list_periodic()
    assert (info.args, info.priority) == (args, 4)
