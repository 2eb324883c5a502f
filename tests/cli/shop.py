"""A database with jobs in it, and the commands that are about them."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from click.testing import Result
from sqlalchemy import URL, Connection, create_engine, insert, select
from sqlalchemy.pool import NullPool

from tests.support.commands import invoke, text
from tests.support.rows import TABLE, row
from tests.support.terminal import Terminals

_SYNC = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True)
class Shop:
    """Runs commands with a database, which it also fills and reads."""

    url: URL
    terminals: Terminals

    def add(self, state: str = "available", **columns: Any) -> int:
        """Insert a row as another program could; returns its id."""
        return self.add_all([row(state, **columns)])[0]

    def add_all(self, rows: Iterable[dict[str, Any]]) -> list[int]:
        with self.connected() as connection:
            # One statement would need the same columns in each row.
            return [
                connection.execute(insert(TABLE).values(values).returning(TABLE.c.id)).scalar_one()
                for values in rows
            ]

    def spoil(self, job_id: int, sql: str) -> None:
        """Write SQL expressions into a row, without the types of SQLAlchemy."""
        with self.connected() as connection:
            connection.exec_driver_sql(f"UPDATE oban_jobs SET {sql} WHERE id = {job_id}")

    def rows(self) -> dict[int, dict[str, Any]]:
        with self.connected() as connection:
            return {found["id"]: dict(found) for found in connection.execute(select(TABLE)).mappings()}

    def states(self) -> dict[int, str]:
        return {id_: str(found["state"]) for id_, found in self.rows().items()}

    @contextmanager
    def connected(self) -> Iterator[Connection]:
        engine = create_engine(
            self.url.set(drivername=_SYNC[self.url.get_backend_name()]), poolclass=NullPool
        )
        with engine.begin() as connection:
            yield connection

    def jobs(self, *arguments: str, columns: int = 120) -> tuple[int, list[str]]:
        """Run `oban jobs` in a terminal; returns its exit code, and the lines on the screen."""
        return self.terminals.run("jobs", *arguments, columns=columns, environment=self.environment)

    def invoke(self, *arguments: str) -> Result:
        """Run `oban jobs` in this process, without a terminal."""
        return invoke("jobs", *arguments, **self.environment)

    def json(self, *arguments: str) -> Any:
        """What a command prints with `--json`."""
        return json.loads(self.invoke(*arguments, "--json").stdout)

    @property
    def environment(self) -> dict[str, str]:
        return {"OBAN_DATABASE_URL": text(self.url)}
