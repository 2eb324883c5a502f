"""A row that no Oban has written breaks neither the pages nor the API for all other rows."""

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Oban, dialects
from oban.web import trends
from oban.web.sessions import Sessions
from tests.support.rows import insert_rows, row
from tests.support.web import Visitor
from tests.support.web_routes import pages

API = ("jobs", "jobs/1", "counts", "stats", "queues", "nodes", "periodic")


async def execute(engine: AsyncEngine, *statements: str) -> None:
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


class TestOnSqlite:
    """SQLite stores values of any type in any column."""

    @pytest.fixture
    def url(self, sqlite_url: URL) -> URL:
        return sqlite_url

    @pytest.mark.parametrize(
        "statement",
        [
            "INSERT INTO oban_producers (uuid, name, node, queue) VALUES ('none', 'Oban', 'web-1', 'mail')",
            "INSERT INTO oban_producers (uuid, name, node, queue) VALUES (7, 'Oban', 'web-1', 'mail')",
            """INSERT INTO oban_queues (name, queue, "limit") VALUES ('Oban', 'mail', 'many')""",
            """INSERT INTO oban_queues (name, queue, "limit") VALUES ('Oban', 'mail', x'ff')""",
            "INSERT INTO oban_queues (name, queue, paused) VALUES ('Oban', x'ff', 1)",
            "UPDATE oban_jobs SET tags = '1'",
            "UPDATE oban_jobs SET tags = 'no json'",
            """UPDATE oban_jobs SET args = '{"number": 99999999999999999999999999}'""",
        ],
    )
    async def test_a_value_of_another_type_breaks_no_page(
        self, oban: Oban, visitor: Visitor, statement: str
    ) -> None:
        await insert_rows(oban.engine, row("available", queue="mail"))
        await execute(oban.engine, statement)
        preview = "/jobs/bulk?action=update&id=1&add_tags=vip"
        for path in [
            preview,
            *pages(),
            *(f"/api/{name}" for name in API),
            "/jobs/suggest?q=tag:",
            "/jobs/1/args.json",
        ]:
            response = await visitor.get(path)
            assert response.status_code < 500, (path, response.text[-400:])

    async def test_attempts_with_numbers_of_any_type_are_shown(self, oban: Oban, visitor: Visitor) -> None:
        await insert_rows(oban.engine, row("available"))
        values = ("1", "x'ff'", "'two'", "0.5")
        await execute(
            oban.engine,
            *(
                "INSERT INTO oban_attempts (job_id, attempt, outcome, ended_at)"
                f" VALUES (1, {value}, 'failed', '2026-01-01 00:00:00.000000')"
                for value in values
            ),
        )
        assert (await visitor.get("/jobs/1")).status_code == 200
        assert len((await visitor.get("/api/jobs/1")).json()["attempts"]) == len(values)


async def test_times_that_are_far_away_do_not_break_the_overview(
    oban: Oban, visitor: Visitor, server_url: URL
) -> None:
    infinite = "infinity" if server_url.drivername.startswith("postgresql") else "9999-12-31 23:59:59.999999"
    await insert_rows(oban.engine, row("completed"), row("completed"), row("executing"))
    await execute(
        oban.engine,
        "UPDATE oban_jobs SET completed_at = CURRENT_TIMESTAMP WHERE state = 'completed'",
        f"UPDATE oban_jobs SET attempted_at = '{infinite}' WHERE id = 1",
        f"UPDATE oban_jobs SET scheduled_at = '{'-' if 'inf' in infinite else ''}{infinite}' WHERE id = 2",
        f"UPDATE oban_jobs SET attempted_at = '{infinite}' WHERE id = 3",
    )
    dialect = dialects.for_bind(oban.engine.sync_engine)
    # Longer than that of the dashboard, as the machine of a test can be busy.
    sessions = Sessions(oban, timeout=60.0)
    async with sessions.read() as session:
        at = (await oban.stats(session=session)).at
        found = await trends.Query(session, dialect, trends.WINDOWS["1h"], at).read()
    await sessions.close()
    assert sum(found.finished["completed"]) == 2
    assert (await visitor.get("/")).status_code == 200


@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/edit", "/api/jobs/{}"])
async def test_an_id_of_5000_digits_is_refused(visitor: Visitor, path: str) -> None:
    assert (await visitor.get(path.format("9" * 5000))).status_code == 404
