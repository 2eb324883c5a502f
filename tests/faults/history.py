"""The history of a test with faults, which `tests.faults.recording` records."""

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple


class Change(NamedTuple):
    """One change of a row of `oban_jobs`, as a trigger recorded it. Times are seconds since 1970.

    `old` and `new` are states, or None for an insertion or a deletion. `node` and `owner` are the
    `attempted_by` of the row after the change, or before a deletion.
    """

    at: float
    job: int
    old: str | None
    new: str | None
    old_attempt: int = 0
    attempt: int = 0
    max_attempts: int = 20
    node: str | None = None
    owner: str | None = None
    #: The number of entries that the change added to `errors`.
    errors: int = 0


class Entry(NamedTuple):
    """An entry that a run of a job wrote into the ledger, in its own transaction.

    `what` is "start", then "end" (the effect of the job), "interrupted" (its task was cancelled) or
    "exit" (it is about to end its process).
    """

    at: float
    job: int
    attempt: int
    node: str
    owner: str
    what: str
    #: Unique for each call of `process`.
    run: str


class Fault(NamedTuple):
    """A fault in a node: "kill", "stop" (a graceful stop that has ended by `until`), "freeze" or "cut".

    The node None means every node.
    """

    node: str | None
    kind: str
    since: float
    until: float = inf


@dataclass(frozen=True)
class History:
    """Everything that happened: the changes in order, the ledger, and the faults."""

    changes: list[Change]
    ledger: list[Entry]
    faults: list[Fault] = field(default_factory=list)
    #: The rows of `oban_attempts`: job, attempt, node and owner of each. None if they were not read.
    stored: list[tuple[int, int, str | None, str | None]] | None = None

    def repeated_effects(self) -> int:
        """The number of effects beyond one per job."""
        ends = [entry.job for entry in self.ledger if entry.what == "end"]
        return len(ends) - len(set(ends))

    def rescues(self) -> list[Change]:
        """Jobs that were rescued from their node to run again."""
        return [
            change
            for change in self.changes
            if (change.old, change.new) == ("executing", "available") and change.attempt == change.old_attempt
        ]

    def late_ends(self) -> list[Entry]:
        """Runs that ended when they no longer owned the row, so their outcome was stale."""
        left = {}
        claimed: dict[int, Change] = {}
        for change in self.changes:
            claim = claimed.get(change.job)
            if change.old == "executing" and change.new != "executing" and claim is not None:
                left[change.job, claim.attempt, claim.owner] = change.at
            if change.new == "executing":
                claimed[change.job] = change
        return [
            entry
            for entry in self.ledger
            if entry.what == "end" and left.get((entry.job, entry.attempt, entry.owner), inf) < entry.at
        ]

    def states(self, until: float = inf) -> dict[int, Change]:
        """The last change of every job up to a time."""
        return {change.job: change for change in self.changes if change.at <= until}
