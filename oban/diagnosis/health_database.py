"""The checks of the database itself: transactions, dead rows, free space and the journal mode."""

from collections.abc import Iterator

from oban import dialects
from oban.amounts import duration, size
from oban.database.transaction import Transaction
from oban.diagnosis.health_findings import SEVERITIES, Finding, Severity
from oban.diagnosis.health_subject import Subject
from oban.models import metadata
from oban.repository import nodes

#: Fewer dead rows, or less free space, are no problem, whatever their number.
MIN_DEAD_SHARE = 0.2
MIN_FREE_SHARE = 0.5


def check_transactions(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether a transaction has been open for so long that vacuum cannot remove dead rows."""
    code = "transaction"
    oldest = about.thresholds.transaction_warning
    found = dialects.diagnostics(tx.dialect).transactions(tx.connection(), oldest)
    if found is None:
        return
    for each in found.open:
        yield Finding(
            code,
            about.thresholds.judge(code, each.seconds),
            f"A transaction of {each.what} has been open for {duration(each.seconds)}: vacuum cannot remove"
            " rows that died since, so the tables of jobs grow and become slow.",
            f"Commit it, or run {each.remedy}. To limit such transactions, set"
            " idle_in_transaction_session_timeout.",
        )
    if found.hidden:
        several = f"{found.hidden} transactions of other roles are"
        open_ = "1 transaction of another role is" if found.hidden == 1 else several
        yield Finding(
            code,
            "unknown",
            f"{open_} open, and this role may not see since when.",
            f"Run {found.remedy}.",
        )
    elif not found.open:
        yield Finding(code, "ok", f"No transaction has been open for more than {duration(oldest)}.")


def check_bloat(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether dead rows are removed from the tables."""
    code, schema = "bloat", tx.schema()
    tables = dialects.diagnostics(tx.dialect).tables(tx.connection(), schema, list(metadata.tables))
    bad = False
    for table in tables:
        share = table.dead_rows / max(1, table.live_rows + table.dead_rows)
        severity = about.thresholds.judge("dead_rows", table.dead_rows) if share >= MIN_DEAD_SHARE else "ok"
        full_name = f"{schema}.{table.table}"
        figures = f"{table.dead_rows:,} dead and {table.live_rows:,} live rows, in {size(table.bytes)}"
        if not table.vacuums:
            bad = True
            yield Finding(
                code,
                max(severity, "warning", key=SEVERITIES.index),
                f"Autovacuum is off for {full_name}, which has {figures}.",
                f"Run ALTER TABLE {full_name} RESET (autovacuum_enabled), turn autovacuum on in the server's"
                f" configuration if it is off there, and run VACUUM ANALYZE {full_name}.",
            )
        elif severity != "ok":
            bad = True
            yield Finding(
                code,
                severity,
                f"Autovacuum does not keep up with {full_name}, which has {figures}.",
                f"See whether a transaction holds vacuum back, and run VACUUM (ANALYZE) {full_name}.",
            )
    if tables and not bad:
        dead = sum(table.dead_rows for table in tables)
        yield Finding(code, "ok", f"Autovacuum keeps up: the tables have {dead:,} dead rows.")


def check_free_space(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether the database's file is mostly empty."""
    space = dialects.diagnostics(tx.dialect).space(tx.connection())
    if space is None:
        return
    figures = f"{size(space.free)} of {size(space.bytes)}"
    severity: Severity = "ok"
    if space.free >= MIN_FREE_SHARE * space.bytes:
        severity = about.thresholds.judge("free_space", space.free / 2**20)
    if severity == "ok":
        yield Finding("free_space", "ok", f"In the database's file, {figures} are free.")
        return
    yield Finding(
        "free_space",
        severity,
        f"The database's file is mostly empty: {figures} are free.",
        "The space is used again. To give it back, stop the nodes and run VACUUM.",
    )


def check_journal(tx: Transaction, about: Subject) -> Iterator[Finding]:
    """Whether readers and the writer wait for each other."""
    # Only a database with one writer has a mode.
    if not tx.dialect.single_writer:
        return
    problem = tx.dialect.mode(tx.connection())
    if problem is None or tx.dialect.holds_memory(tx.connection()):
        yield Finding("journal_mode", "ok", "Readers and the writer do not wait for each other.")
        return
    if not any(node.alive for node in nodes.list_nodes(tx, about.name)):
        yield Finding("journal_mode", "ok", "The first node that starts sets the journal mode.")
        return
    yield Finding(
        "journal_mode",
        "warning",
        f"{problem[0].upper()}{problem[1:]}.",
        "Run PRAGMA journal_mode = WAL while nobody else is connected. A node sets it when it starts, unless"
        " the application has set another mode.",
    )
