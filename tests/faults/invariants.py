"""`check`, which finds violations of the invariants in a history."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from tests.faults.history import Change, Fault, History

FINAL = frozenset({"completed", "cancelled", "discarded"})
WAITING = frozenset({"available", "scheduled", "retryable", "suspended"})
#: Every allowed change of state, where None is a row that does not exist.
MOVES: dict[str | None, frozenset[str | None]] = {
    None: frozenset({"available", "scheduled", "suspended"}),
    "available": frozenset({"executing", "scheduled", "cancelled", "discarded", None}),
    "scheduled": frozenset({"available", "cancelled", "discarded", None}),
    "retryable": frozenset({"available", "cancelled", "discarded", None}),
    "suspended": frozenset({"available", "cancelled", None}),
    "executing": frozenset({"completed", "retryable", "scheduled", "available", "cancelled", "discarded"}),
    **dict.fromkeys(FINAL, frozenset({"available", None})),
}


class Violation(NamedTuple):
    """A broken rule, which is one of the invariants I1 to I5 and I10, with the job and a description."""

    rule: str
    job: int | None
    text: str


@dataclass
class Attempt:
    """A claim of a job, the outcome in the row, and the times at which its run began and ended."""

    claim: Change
    left: Change | None = None
    start: float | None = None
    end: float = inf


def check(
    history: History,
    *,
    lease: float,
    slack: float | None = None,
    expect: Iterable[int] = (),
    silent: Collection[int] = (),
    at_rest: bool = True,
) -> list[Violation]:
    """Find every violation of the rules in a history.

    A node can lose its jobs if it was killed, frozen or cut off for more than `lease` minus `slack` seconds,
    as a fault begins up to one late heartbeat after the last one. The default of `slack` is half the lease.
    `expect` has the ids of jobs whose insertion was confirmed. Jobs in `silent` write no ledger and can be
    inserted in any state. With `at_rest` every job must have ended.
    """
    checker = _Checker(history, lease - (lease / 2 if slack is None else slack), lease, frozenset(silent))
    checker.moves()
    checker.ledger()
    checker.outcomes()
    checker.owners()
    checker.stops()
    checker.nothing_lost(expect, at_rest)
    checker.attempts_stored()
    return sorted(checker.found, key=lambda violation: (violation.rule, violation.job or 0))


class _Checker:
    def __init__(self, history: History, loss: float, lease: float, silent: frozenset[int]) -> None:
        self.history = history
        self.loss = loss
        self.lease = lease
        self.silent = silent
        self.found: list[Violation] = []
        # Other runs of that node continue for the moment that it still lives.
        self.faults = [
            *history.faults,
            *(
                Fault(entry.node, "kill", entry.at, entry.at + 1)
                for entry in history.ledger
                if entry.what == "exit"
            ),
        ]
        self.attempts: dict[int, list[Attempt]] = defaultdict(list)
        for change in history.changes:
            attempts = self.attempts[change.job]
            if change.new == "executing" and (
                change.old != "executing" or change.attempt != change.old_attempt
            ):
                attempts.append(Attempt(change))
            elif change.old == "executing" and change.new != "executing" and attempts:
                attempts[-1].left = change

    def broken(self, rule: str, job: int | None, text: str) -> None:
        self.found.append(Violation(rule, job, text))

    def moves(self) -> None:
        """I5, I4 by the rows, and I3 for rows of jobs that have ended."""
        for change in self.history.changes:
            job, old, new = change.job, change.old, change.new
            known = "" if new is None else f" (attempt {change.attempt} of {change.node})"
            if old == new:
                if old == "executing" and change.attempt != change.old_attempt:
                    self.broken("I2", job, f"claimed again while executing{known}")
                elif change.errors and old != "cancelled":
                    self.broken("I3", job, f"an error was added to a row that is {old}{known}")
            elif new not in MOVES[old] and not (old is None and job in self.silent):
                self.broken("I5", job, f"went from {old} to {new}{known}")
            if old is None or new is None:
                continue
            steps = {0}
            if new == "executing":
                steps = {1} if old != new else {0, 1}
            elif old == "executing" and new == "scheduled":
                steps = {-1}
            elif old == "executing" and new == "available":
                steps = {0, -1}
            if change.attempt - change.old_attempt not in steps:
                self.broken(
                    "I4", job, f"{old} to {new}: attempt {change.old_attempt} became {change.attempt}"
                )
            if change.attempt > change.max_attempts and job not in self.silent:
                self.broken("I4", job, f"attempt {change.attempt} of at most {change.max_attempts}")

    def ledger(self) -> None:
        """I4 by the ledger: one claim, one run. Records when each run began and ended."""
        claims: dict[tuple[int, int, str | None], list[Attempt]] = defaultdict(list)
        for job, attempts in self.attempts.items():
            for attempt in attempts:
                claims[job, attempt.claim.attempt, attempt.claim.owner].append(attempt)
        runs: dict[str, Attempt] = {}
        for entry in self.history.ledger:
            # There are several if the attempt was given back and the same node fetched the job again.
            claimed = [
                attempt
                for attempt in claims[entry.job, entry.attempt, entry.owner]
                if attempt.claim.at <= entry.at
            ]
            name = f"attempt {entry.attempt} of {entry.node}"
            if entry.what == "start":
                if not claimed:
                    self.broken("I4", entry.job, f"{name} started without a claim")
                elif claimed[-1].start is not None:
                    self.broken("I4", entry.job, f"{name} started twice")
                else:
                    claimed[-1].start, runs[entry.run] = entry.at, claimed[-1]
            elif entry.run in runs:
                runs[entry.run].end = min(runs[entry.run].end, entry.at)
        for attempt in runs.values():
            if attempt.end == inf:
                # The end of a process also ends its runs.
                attempt.end = min(
                    (
                        fault.until
                        for fault in self.of(attempt.claim.node)
                        if fault.kind in {"kill", "stop"} and fault.until >= (attempt.start or 0)
                    ),
                    default=inf,
                )

    def outcomes(self) -> None:
        """I3: only a run that has ended stores an outcome. I2: no living node loses a job."""
        for job, attempts in self.attempts.items():
            for attempt in attempts:
                left = attempt.left
                if left is None or left.new == "cancelled":
                    continue
                name = f"attempt {attempt.claim.attempt} of {attempt.claim.node}"
                over = attempt.start is not None and attempt.end <= left.at
                rescued = left.new == "available" and left.attempt == left.old_attempt
                if rescued or (left.new == "discarded" and not over and job not in self.silent):
                    if not self.lost(attempt.claim, left.at):
                        self.broken("I2", job, f"{name} was rescued, but its node was healthy")
                elif left.new != "available" and not over and job not in self.silent:
                    self.broken("I3", job, f"{name} had not ended when its row became {left.new}")

    def owners(self) -> None:
        """I2: two runs of a job overlap only if the first one lost the job in a fault."""
        for job, attempts in self.attempts.items():
            started = [attempt for attempt in attempts if attempt.start is not None]
            for index, first in enumerate(started):
                for second in started[index + 1 :]:
                    if (second.start or 0) < first.end and not self.given_up(first):
                        self.broken(
                            "I2",
                            job,
                            f"attempt {second.claim.attempt} of {second.claim.node} began while attempt"
                            f" {first.claim.attempt} of {first.claim.node} was under way",
                        )

    def stops(self) -> None:
        """I10: a node that has stopped owns no job and does nothing."""
        for fault in self.history.faults:
            if fault.kind != "stop":
                continue
            for change in self.history.states(fault.until).values():
                if change.new == "executing" and change.node == fault.node:
                    self.broken("I10", change.job, f"still executing when {fault.node} had stopped")
            for entry in self.history.ledger:
                if entry.node == fault.node and entry.at > fault.until:
                    self.broken("I10", entry.job, f"{entry.what} on {fault.node} after it had stopped")

    def attempts_stored(self) -> None:
        """I11: each attempt that has ended has one row, and no other has any."""
        if self.history.stored is None:
            return
        deleted = {change.job for change in self.history.changes if change.new is None}
        ended = Counter(
            (change.job, change.old_attempt, change.node, change.owner)
            for change in self.history.changes
            if change.old == "executing" and change.new not in ("executing", None)
        )
        rows = Counter(self.history.stored)
        for key in ended.keys() | rows.keys():
            expected = 0 if key[0] in deleted else ended[key]
            if rows[key] != expected:
                text = f"has {rows[key]} rows instead of {expected} for attempt {key[1]} of {key[2]}"
                self.broken("I11", key[0], text)

    def nothing_lost(self, expect: Iterable[int], at_rest: bool) -> None:
        """I1: every inserted job exists, and ends."""
        last = self.history.states()
        for job in expect:
            if job not in last:
                self.broken("I1", job, "was inserted, but is not there")
        for job, change in last.items():
            if at_rest and change.new is not None and change.new not in FINAL:
                self.broken(
                    "I1", job, f"is {change.new} at the end (attempt {change.attempt} of {change.node})"
                )

    def of(self, node: str | None) -> list[Fault]:
        return [fault for fault in self.faults if fault.node in (node, None)]

    def lost(self, claim: Change, at: float) -> bool:
        """Whether the owner of a claim was away for so long by then that it can have lost the job."""
        for fault in self.of(claim.node):
            if fault.since + self.loss > at or fault.kind == "stop":
                continue
            # A job that the node fetches after its return is not lost.
            away = fault.until - fault.since >= self.loss and claim.at <= fault.until
            if fault.kind == "kill" or (away and at <= fault.until + self.lease):
                return True
        return False

    def given_up(self, attempt: Attempt) -> bool:
        """Whether the row was rightly taken from a run that can continue without it."""
        left = attempt.left
        if left is None:
            return False
        if left.new == "available" and left.attempt < left.old_attempt:
            # A node that stops has put the job back.
            return any(fault.kind == "stop" for fault in self.of(attempt.claim.node))
        return left.new == "cancelled" or self.lost(attempt.claim, left.at)
