"""`Health`, `Finding` and `Thresholds`: what `health` returns, and when it is a problem."""

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from oban import display
from oban.errors import InvalidArgument

Severity: TypeAlias = Literal["ok", "warning", "critical", "unknown"]
#: From the best to the worst.
SEVERITIES: tuple[Severity, ...] = ("ok", "unknown", "warning", "critical")


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check.

    Attributes:
        code: The name of the check, such as `trigger`. docs/guides/diagnosing.md lists all of them.
        severity: "ok", "warning", "critical", or "unknown" if the check could not be made.
        text: What was found, in a sentence for people.
        advice: What to do about it, in a sentence; None if nothing.
    """

    code: str
    severity: Severity
    text: str
    advice: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """The health of an instance, its tables and its database.

    Attributes:
        instance: The name of the instance; empty if the configuration of `oban check` is wrong.
        severity: The worst severity of a finding: "critical", then "warning", "unknown" and "ok".
        findings: All findings, in the order of the checks. Each check has at least one.
    """

    instance: str
    severity: Severity
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that are not ok, the worst first."""
        problems = [finding for finding in self.findings if finding.severity != "ok"]
        return tuple(sorted(problems, key=lambda finding: -SEVERITIES.index(finding.severity)))


def worst(findings: tuple[Finding, ...]) -> Severity:
    """The severity of the worst finding."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which figures on `health` warns, and from which on a problem is critical.

    Args:
        oldest_job_warning: Seconds that the oldest available job of a queue has waited (default 300).
        oldest_job_critical: The same, for critical (default 3600).
        clock_skew_warning: Seconds between the clocks of a node and the database (default 5).
        clock_skew_critical: The same, for critical (default 60).
        transaction_warning: Seconds that a transaction is open, on PostgreSQL (default 300).
        transaction_critical: The same, for critical (default 3600).
        dead_rows_warning: Dead rows of a table that are a fifth of its rows or more, on PostgreSQL
            (default 100,000).
        dead_rows_critical: The same, for critical (default 1,000,000).
        free_space_warning: Free megabytes in the file that are half of it or more, on SQLite (default 256).
        free_space_critical: The same, for critical (default 4096).

    Raises:
        InvalidArgument: A value is not a number of at least 0, or a warning comes only after critical.
    """

    oldest_job_warning: float = 300.0
    oldest_job_critical: float = 3600.0
    clock_skew_warning: float = 5.0
    clock_skew_critical: float = 60.0
    transaction_warning: float = 300.0
    transaction_critical: float = 3600.0
    dead_rows_warning: float = 100_000.0
    dead_rows_critical: float = 1_000_000.0
    free_space_warning: float = 256.0
    free_space_critical: float = 4096.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not is_number or not 0 <= value < math.inf:
                raise InvalidArgument(
                    f"{field.name} must be a number of at least 0, not {display.shown(value)}"
                )
        for field in fields(self):
            name, _, kind = field.name.rpartition("_")
            if kind == "warning" and self.of(name)[0] > self.of(name)[1]:
                warning, critical = self.of(name)
                raise InvalidArgument(
                    f"{name}_warning must not be greater than {name}_critical: {warning:g} > {critical:g}"
                )

    def of(self, name: str) -> tuple[float, float]:
        """The thresholds for a warning and for critical of `oldest_job`, say."""
        return getattr(self, f"{name}_warning"), getattr(self, f"{name}_critical")

    def judge(self, name: str, value: float) -> Severity:
        """The severity of a figure."""
        warning, critical = self.of(name)
        return "critical" if value >= critical else "warning" if value >= warning else "ok"


def sentence(text: str) -> str:
    """A clause as a sentence. The name of a table at its beginning stays as it is."""
    first = text.partition(" ")[0]
    return f"{text if {*'._'} & {*first} else text[:1].upper() + text[1:]}."
