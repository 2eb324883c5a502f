"""Failures that tests cause when a runner reads or updates rows."""

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
