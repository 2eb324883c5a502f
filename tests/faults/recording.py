"""Records a test with faults in its database: changes of jobs by triggers, and the ledger of the runs.

Call `install` before anything runs, and `read` at the end. Both tables exist in tests only.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Connection, NullPool, create_engine, text

from tests.faults.history import Change, Entry, Fault, History

SYNC = {"postgresql": "postgresql+psycopg", "sqlite": "sqlite"}

_COLUMNS = "at, job, old, new, old_attempt, attempt, max_attempts, node, owner, errors"

_POSTGRESQL = f"""
CREATE TABLE oban_history (
  seq bigserial PRIMARY KEY, at float8 NOT NULL, job bigint NOT NULL, old text, new text,
  old_attempt int, attempt int, max_attempts int, node text, owner text, errors int);
CREATE TABLE oban_ledger (
  seq bigserial PRIMARY KEY, at float8 NOT NULL DEFAULT extract(epoch FROM clock_timestamp()),
  job bigint NOT NULL, attempt int NOT NULL, node text NOT NULL, owner text NOT NULL,
  what text NOT NULL, run text NOT NULL, UNIQUE (run, what));
CREATE FUNCTION oban_errors(errors jsonb) RETURNS int LANGUAGE sql IMMUTABLE AS
  $$ SELECT CASE WHEN jsonb_typeof(errors) = 'array' THEN jsonb_array_length(errors) ELSE 0 END $$;
CREATE FUNCTION oban_remember() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  now float8 := extract(epoch FROM clock_timestamp());
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO oban_history ({_COLUMNS}) VALUES (now, NEW.id, NULL, NEW.state, NEW.attempt, NEW.attempt,
      NEW.max_attempts, NEW.attempted_by[1], NEW.attempted_by[2], 0);
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO oban_history ({_COLUMNS}) VALUES (now, OLD.id, OLD.state, NULL, OLD.attempt, OLD.attempt,
      OLD.max_attempts, OLD.attempted_by[1], OLD.attempted_by[2], 0);
  ELSE
    INSERT INTO oban_history ({_COLUMNS}) VALUES (now, NEW.id, OLD.state, NEW.state, OLD.attempt, NEW.attempt,
      NEW.max_attempts, NEW.attempted_by[1], NEW.attempted_by[2],
      oban_errors(NEW.errors) - oban_errors(OLD.errors));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER oban_remember AFTER INSERT OR UPDATE OR DELETE ON oban_jobs
  FOR EACH ROW EXECUTE FUNCTION oban_remember();
"""

_NOW = "(julianday('now') - 2440587.5) * 86400.0"


def _element(row: str, number: int) -> str:
    return f"CASE WHEN json_valid({row}.attempted_by) THEN {row}.attempted_by ->> {number} END"


def _errors(row: str) -> str:
    return f"CASE WHEN json_valid({row}.errors) THEN json_array_length({row}.errors) ELSE 0 END"


def _sqlite_trigger(event: str, row: str, old: str, new: str, before: str, errors: str) -> str:
    return f"""
CREATE TRIGGER oban_remember_{event} AFTER {event} ON oban_jobs BEGIN
  INSERT INTO oban_history ({_COLUMNS}) VALUES ({_NOW}, {row}.id, {old}, {new}, {before}.attempt,
    {row}.attempt, {row}.max_attempts, {_element(row, 0)}, {_element(row, 1)}, {errors});
END"""


_SQLITE = [
    """CREATE TABLE oban_history (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, job INTEGER NOT NULL, old TEXT, new TEXT,
  old_attempt INTEGER, attempt INTEGER, max_attempts INTEGER, node TEXT, owner TEXT, errors INTEGER)""",
    f"""CREATE TABLE oban_ledger (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL DEFAULT ({_NOW}),
  job INTEGER NOT NULL, attempt INTEGER NOT NULL, node TEXT NOT NULL, owner TEXT NOT NULL,
  what TEXT NOT NULL, run TEXT NOT NULL, UNIQUE (run, what))""",
    _sqlite_trigger("insert", "NEW", "NULL", "NEW.state", "NEW", "0"),
    _sqlite_trigger("delete", "OLD", "OLD.state", "NULL", "OLD", "0"),
    _sqlite_trigger("update", "NEW", "OLD.state", "NEW.state", "OLD", f"{_errors('NEW')} - {_errors('OLD')}"),
]


@contextmanager
def connected(url: URL) -> Iterator[Connection]:
    """A sync connection in autocommit to the database of a URL, whatever its driver."""
    name = url.get_backend_name()
    engine = create_engine(url.set(drivername=SYNC[name]), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        if name == "sqlite":
            connection.exec_driver_sql("PRAGMA busy_timeout = 30000")
        yield connection


def install(url: URL) -> None:
    """Create the tables and the triggers in a database that has the schema."""
    with connected(url) as connection:
        for statement in [_POSTGRESQL] if url.get_backend_name() == "postgresql" else _SQLITE:
            connection.exec_driver_sql(statement)


def read(url: URL, faults: Iterable[Fault] = ()) -> History:
    """The recorded history, with the faults that the test caused."""
    with connected(url) as connection:
        changes = connection.execute(text(f"SELECT {_COLUMNS} FROM oban_history ORDER BY seq")).all()
        entries = connection.execute(
            text("SELECT at, job, attempt, node, owner, what, run FROM oban_ledger ORDER BY seq")
        ).all()
        stored = connection.execute(text("SELECT job_id, attempt, node, producer FROM oban_attempts")).all()
    return History(
        [Change(*row) for row in changes],
        [Entry(*row) for row in entries],
        list(faults),
        [(row[0], row[1], row[2], row[3]) for row in stored],
    )
