"""The checks of the tables: their revision, what is missing or different, and the trigger."""

from collections.abc import Iterator

from oban.database.transaction import Transaction
from oban.diagnosis.health_findings import Finding, sentence
from oban.diagnosis.health_subject import Subject
from oban.repository.trigger import trigger_problem


def check_revision(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether the tables exist, and are at the newest revision."""
    from oban.migration import drift  # Importing Alembic takes as long as all checks.

    code, schema = "schema_version", tx.schema()
    where = f" in the schema {schema}" if schema else ""
    if "oban_jobs" in drift.missing_tables(tx.connection(), schema):
        yield Finding(code, "critical", f"There are no Oban tables{where}.", _install(about))
        return
    revision = drift.find_revision(tx.connection(), schema)
    if not revision.known:
        yield Finding(
            code,
            "warning",
            f"The tables{where} are at revision {revision.current}, which this version of Oban does not know:"
            f" its newest one is {revision.newest}.",
            "Update Oban here to the version that has updated the tables.",
        )
    elif revision.current is None:
        yield Finding(
            code,
            "ok",
            f"The tables{where} have no recorded revision, because `create_all` made them, say.",
        )
    elif revision.current != revision.newest:
        yield Finding(
            code,
            "critical",
            f"The tables{where} are at revision {revision.current}, but this version of Oban needs"
            f" {revision.newest}.",
            _install(about),
        )
    else:
        yield Finding(code, "ok", f"The tables{where} are at revision {revision.newest}, the newest one.")


def _install(about: Subject) -> str:
    return f"Run `{about.commands.install()}`, or `alembic upgrade head` if Alembic manages the tables."


def check_drift(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether anything of the tables is missing or different."""
    from oban.migration import drift

    code, schema, connection = "schema_drift", tx.schema(), tx.connection()
    if "oban_jobs" in drift.missing_tables(connection, schema):
        yield Finding(code, "unknown", "There are no tables to compare.", _install(about))
        return
    revision = drift.find_revision(connection, schema)
    if revision.current is not None and revision.current != revision.newest:
        yield Finding(
            code,
            "ok",
            f"The tables are not compared, because they are at revision {revision.current}, not"
            f" {revision.newest}.",
        )
        return
    differences = drift.differences(connection, schema)
    for difference in differences:
        severity = "critical" if difference.fatal else "warning"
        yield Finding(code, severity, sentence(difference.text), sentence(difference.advice))  # type: ignore[arg-type]
    if not differences:
        yield Finding(code, "ok", "The tables, columns, indexes and constraints are those of this version.")


def check_trigger(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether the trigger announces inserted jobs."""
    if not tx.dialect.insert_notifies:
        return
    code, schema = "trigger", tx.schema()
    trigger = tx.dialect.insert_trigger(tx.connection(), schema)
    if trigger is None:
        return
    if trigger.muted:
        yield Finding(code, "ok", "The setting oban.notify turns announcements of inserted jobs off.")
    elif (problem := trigger_problem(trigger, f"{schema}.oban_jobs")) is not None:
        yield Finding(code, "warning", sentence(problem.text), sentence(problem.advice))
    else:
        yield Finding(code, "ok", "The trigger announces inserted jobs.")
