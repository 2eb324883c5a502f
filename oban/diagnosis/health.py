"""`Examination`: makes the checks of an instance's health one by one, each in a transaction of its own.

No check fails because another one did: a role may lack a privilege, or a statement take too long.
"""

import math
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from oban import clock, dialects, display, suggestions
from oban.config import Options
from oban.database.transaction import Transaction
from oban.diagnosis import health_database, health_jobs, health_nodes, health_schema
from oban.diagnosis.health_findings import SEVERITIES, Finding, Health, Thresholds, sentence, worst
from oban.diagnosis.health_subject import Subject
from oban.diagnosis.texts import Commands
from oban.errors import DatabaseUnavailable, InvalidArgument, SchemaMissing

#: Seconds that one statement can take, on a database with such a limit.
STATEMENT_TIMEOUT = 5.0
#: At most so many findings of one check, the worst ones.
MAX_FINDINGS = 20


class Check(NamedTuple):
    """A check: the code of its findings, and what finds them."""

    code: str
    find: Callable[[Transaction, Subject], Iterator[Finding]]


def _check_database(tx: Transaction, about: Subject) -> Iterator[Finding]:
    started_at = clock.monotonic()
    version = dialects.diagnostics(tx.dialect).version(tx.connection())
    milliseconds = (clock.monotonic() - started_at) * 1000
    yield Finding("database", "ok", f"{version} answers in {milliseconds:.1f} ms.")


CHECKS = (
    # The first one decides whether there are others.
    Check("database", _check_database),
    Check("schema_version", health_schema.check_revision),
    Check("schema_drift", health_schema.check_drift),
    Check("trigger", health_schema.check_trigger),
    Check("stale_node", health_nodes.check_heartbeats),
    Check("clock_skew", health_nodes.check_clocks),
    Check("listener", health_nodes.check_listeners),
    Check("leader", health_nodes.check_leader),
    Check("unserved_queue", health_jobs.check_unserved),
    Check("oldest_job", health_jobs.check_queues),
    Check("staging", health_jobs.check_staging),
    Check("transaction", health_database.check_transactions),
    Check("bloat", health_database.check_bloat),
    Check("free_space", health_database.check_free_space),
    Check("journal_mode", health_database.check_journal),
)
CODES = tuple(check.code for check in CHECKS)


class Examination:
    """The checks of one call of `health`.

    Args:
        options: The options of the client.
        thresholds: From which figures on something is a problem.
        skip: The codes of checks to leave out. The database is always checked.
        timeout: Seconds for all checks.
        missing_file: Which file of the database does not exist, as a clause. A connection would create it.

    Raises:
        InvalidArgument: A code is unknown, or `timeout` is not a positive number.
    """

    def __init__(
        self,
        options: Options,
        thresholds: Thresholds | None,
        skip: Collection[str],
        timeout: float,
        missing_file: str | None,
    ) -> None:
        if isinstance(skip, str):
            raise InvalidArgument(f"skip must be a collection of codes, not {display.shown(skip)}")
        for code in skip:
            if code not in CODES:
                near = suggestions.suggestion(code, list(CODES))
                raise InvalidArgument(f"skip: there is no check {display.shown(code)}{near}")
        if thresholds is not None and not isinstance(thresholds, Thresholds):
            raise InvalidArgument(f"thresholds must be Thresholds, not {display.shown(thresholds)}")
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
            raise InvalidArgument(f"timeout must be a positive number, not {display.shown(timeout)}")
        self._subject = Subject(options.name, thresholds or Thresholds(), Commands(options))
        self._skip = frozenset(skip)
        self._timeout = timeout
        self._ends_at = clock.monotonic() + timeout
        self._findings: list[Finding] = []
        self._is_unusable = missing_file is not None
        if missing_file is not None:
            text = f"There is no database: {missing_file}."
            advice = "See whether the URL is right. `oban install` creates the file with the tables."
            self._findings.append(Finding("database", "critical", text, advice))

    def checks(self) -> Iterator[Check]:
        """The checks to make. Pass each to `run` in a transaction, and the result to `add` or `fail`."""
        for check in CHECKS:
            if self._is_unusable:
                return
            if check.code in self._skip and check is not CHECKS[0]:
                continue
            if self.left <= 0:
                text = f"There was no time left for the check within {self._timeout:g} s."
                self._findings.append(Finding(check.code, "unknown", text, "Allow more time."))
                continue
            yield check

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._ends_at - clock.monotonic()

    def run(self, tx: Transaction, check: Check) -> list[Finding]:
        """Make a check."""
        diagnostics, connection = dialects.diagnostics(tx.dialect), tx.connection()
        diagnostics.limit(connection, max(0.001, min(STATEMENT_TIMEOUT, self.left)))
        found = list(check.find(tx, self._subject))
        # The transaction can be the caller's.
        diagnostics.unlimit(connection)
        return found

    def add(self, found: list[Finding]) -> None:
        """Add the findings of a check."""
        found.sort(key=lambda finding: -SEVERITIES.index(finding.severity))
        left_out = found[MAX_FINDINGS:]
        self._findings += found[:MAX_FINDINGS]
        if left_out:
            text = f"There are {len(left_out)} more such findings."
            self._findings.append(Finding(left_out[0].code, left_out[0].severity, text))

    def fail(self, check: Check, error: Exception) -> None:
        """Add a finding about a check that raised an error; raises the error if it is not the database's."""
        if not isinstance(error, (DBAPIError, OSError, TimeoutError, PoolTimeout, SchemaMissing)):
            raise error
        cause = error if isinstance(error, DatabaseUnavailable) else dialects.driver_error(error)
        lines = str(cause).strip().splitlines()
        reason = lines[0] if lines else type(error).__name__
        if isinstance(error, SchemaMissing):
            # The check of the revision says so, and what to do.
            self._findings.append(Finding(check.code, "unknown", "The tables for the check are missing."))
        elif check is CHECKS[0]:
            self._is_unusable = True
            if isinstance(error, TimeoutError) and not isinstance(error, DatabaseUnavailable):
                reason = f"has not answered within {self._timeout:g} s"
            elif not isinstance(error, DatabaseUnavailable):
                reason = f"cannot be used: {reason}"
            self._findings.append(
                Finding(
                    check.code,
                    "critical",
                    sentence(reason if isinstance(error, DatabaseUnavailable) else f"the database {reason}"),
                    "See whether its server runs and can be reached from here, and whether the URL is right.",
                )
            )
        else:
            self._findings.append(
                Finding(
                    check.code,
                    "unknown",
                    f"The check could not be made: {reason}.",
                    "Grant the role what it lacks, if that is the reason, or leave the check out with --skip"
                    f" {check.code}.",
                )
            )

    def result(self) -> Health:
        """The findings of all checks."""
        findings = tuple(self._findings)
        return Health(self._subject.name, worst(findings), findings)
