"""Rows that tests keep a runner from reading or updating."""

from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from oban import Job

# A trigger that refuses to update an executing job to a state, if the table `refused` has a row for both.
TABLE = "CREATE TABLE refused (job bigint, state text)"
SQLITE = """
CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs
WHEN old.state = 'executing'
 AND EXISTS (SELECT 1 FROM refused WHERE job = old.id AND new.state GLOB refused.state)
BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END
"""
FUNCTION = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state = 'executing'
     AND EXISTS (SELECT 1 FROM refused WHERE job = old.id AND new.state::text LIKE refused.state) THEN
    RAISE EXCEPTION 'refused by a trigger';
  END IF;
  RETURN new;
END $$
"""
POSTGRESQL = "CREATE TRIGGER refuse BEFORE UPDATE ON oban_jobs FOR EACH ROW EXECUTE FUNCTION refuse()"
ANY_STATE = {"sqlite": "*", "postgresql": "%"}


async def refuse(engine: AsyncEngine, job: int, state: str | None = None) -> None:
    """Let the database refuse to store an outcome of a job: any outcome, or those with this state."""
    async with engine.begin() as connection:
        for statement in (
            [TABLE, SQLITE] if engine.dialect.name == "sqlite" else [TABLE, FUNCTION, POSTGRESQL]
        ):
            await connection.exec_driver_sql(statement)
        await connection.execute(
            text("INSERT INTO refused VALUES (:job, :state)"),
            {"job": job, "state": state or ANY_STATE[engine.dialect.name]},
        )


class Unreadable:
    """Makes a runner fail when it reads the rows of the jobs in `ids`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: set[int] = set()
        self._stored = Job._from_row
        monkeypatch.setattr(Job, "_from_row", self)

    def __call__(self, row: Any) -> Job:
        if row[0] in self.ids:
            raise OverflowError("date value out of range")
        return self._stored(row)


# Triggers that refuse what an outcome adds to `meta`, and some errors or all of them.
VALUES_SQLITE = """
CREATE TRIGGER refuse_values BEFORE UPDATE ON oban_jobs
WHEN old.state = 'executing' AND (
  json_extract(new.meta, '$.recorded') OR json_extract(new.meta, '$.snoozed') OR {refused_errors}
) BEGIN SELECT RAISE(ABORT, 'refused by a trigger'); END
"""
VALUES_FUNCTION = """
CREATE FUNCTION refuse_values() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF old.state = 'executing' AND (
    new.meta ? 'recorded' OR new.meta ? 'snoozed' OR {refused_errors}
  ) THEN RAISE EXCEPTION 'refused by a trigger' USING ERRCODE = '22023'; END IF;
  RETURN new;
END $$
"""
VALUES_POSTGRESQL = """
CREATE TRIGGER refuse_values BEFORE UPDATE ON oban_jobs FOR EACH ROW EXECUTE FUNCTION refuse_values()
"""


async def refuse_values(engine: AsyncEngine, *, errors: bool) -> None:
    """Let the database refuse what jobs record, and errors with "refuse me" in them, or all with `errors`."""
    is_sqlite = engine.dialect.name == "sqlite"
    text_of_errors = "new.errors" if is_sqlite else "to_jsonb(new.errors)::text"
    refused_errors = "new.errors <> old.errors" if errors else f"{text_of_errors} LIKE '%refuse me%'"
    async with engine.begin() as connection:
        for statement in [VALUES_SQLITE] if is_sqlite else [VALUES_FUNCTION, VALUES_POSTGRESQL]:
            await connection.exec_driver_sql(statement.replace("{refused_errors}", refused_errors))
