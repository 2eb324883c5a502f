"""The checker finds every broken rule, and nothing in a correct history."""

from typing import Any

import pytest

from tests.faults.history import Change, Entry, Fault, History
from tests.faults.invariants import Violation, check

LEASE = 2.0


class Written:
    """A history that a test writes by hand. Each step takes a tenth of a second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.changes: list[Change] = []
        self.ledger: list[Entry] = []
        self.faults: list[Fault] = []
        self.rows: dict[int, Change] = {}

    def change(self, new: str | None, job: int = 1, **columns: Any) -> "Written":
        """Change the row of a job; other columns stay."""
        self.now += 0.1
        before = self.rows.get(job, Change(0, job, None, None))
        row = before._replace(at=self.now, old=before.new, new=new, old_attempt=before.attempt, errors=0)
        self.rows[job] = row._replace(**columns)
        self.changes.append(self.rows[job])
        return self

    def claim(self, node: str, job: int = 1) -> "Written":
        return self.change("executing", job, node=node, owner=node, attempt=self.rows[job].attempt + 1)

    def note(
        self, what: str, node: str, attempt: int | None = None, job: int = 1, run: str = ""
    ) -> "Written":
        """Let a run of a job write into the ledger."""
        self.now += 0.1
        attempt = self.rows[job].attempt if attempt is None else attempt
        name = run or f"{job}/{attempt}/{node}"
        self.ledger.append(Entry(self.now, job, attempt, node, node, what, name))
        return self

    def run(self, node: str, job: int = 1) -> "Written":
        return self.claim(node, job).note("start", node, job=job).note("end", node, job=job)

    def wait(self, seconds: float) -> "Written":
        self.now += seconds
        return self

    def fault(self, kind: str, node: str | None, seconds: float = 0) -> "Written":
        self.faults.append(Fault(node, kind, self.now, self.now + seconds))
        return self

    def found(self, **options: Any) -> list[Violation]:
        return check(History(self.changes, self.ledger, self.faults), lease=LEASE, **options)


def a_good_history() -> Written:
    """A history with an example of everything that is allowed."""
    written = Written()
    for job in range(1, 10):
        written.change("available", job)
    written.run("a", 1).change("completed", 1)
    # Failed, staged, run again.
    written.run("a", 2).change("retryable", 2, errors=1).change("available", 2).run("b", 2).change(
        "completed", 2
    )
    # Snoozed, which gives the attempt back.
    written.run("a", 3).change("scheduled", 3, attempt=0).change("available", 3).run("a", 3).change(
        "completed", 3
    )
    # Cancelled while it ran, then an error; retried while the first run continues.
    written.claim("a", 4).note("start", "a", job=4).change("cancelled", 4).change("cancelled", 4, errors=1)
    written.change("available", 4).run("b", 4).note("end", "a", 1, 4).change("completed", 4)
    # Killed before and after its start, and rescued.
    written.claim("k", 5).claim("k", 6).note("start", "k", job=6).fault("kill", "k").wait(LEASE)
    for job in (5, 6):
        written.change("available", job).run("b", job).change("completed", job)
    # Frozen: both runs overlap, and the late one changes nothing.
    written.claim("f", 7).note("start", "f", job=7).fault("freeze", "f", 2 * LEASE).wait(LEASE).change(
        "available", 7
    )
    written.claim("b", 7).note("start", "b", job=7).wait(LEASE).note("end", "f", 1, 7).note("end", "b", 2, 7)
    written.change("completed", 7)
    # Put back by a node that stops.
    written.claim("s", 8).note("start", "s", job=8).fault("stop", "s", 0.5).note("interrupted", "s", job=8)
    written.change("available", 8, attempt=0).wait(0.5).run("b", 8).change("completed", 8)
    # Kills its process until no attempt is left.
    written.change("available", 9, max_attempts=1).claim("d", 9).note("start", "d", job=9).note(
        "exit", "d", job=9
    )
    written.wait(LEASE).change("discarded", 9, errors=1).change(None, 9)
    return written


def test_nothing_is_found_in_a_correct_history() -> None:
    assert a_good_history().found(expect=range(1, 10)) == []


def test_a_run_that_rightly_lost_its_job_can_continue_during_any_number_of_later_runs() -> None:
    written = frozen(2 * LEASE).fault("kill", "b").wait(3 * LEASE).change("available")
    written.run("a").change("completed").note("end", "a", 1)
    assert written.found() == []


def inserted() -> Written:
    return Written().change("available")


def frozen(seconds: float) -> Written:
    """Begin the second run while the first one, whose node was frozen, has not ended."""
    written = inserted().claim("a").note("start", "a").fault("freeze", "a", seconds).wait(LEASE)
    return written.change("available").claim("b").note("start", "b")


BROKEN = {
    "a job that does not end": ("I1", inserted().claim("a").note("start", "a")),
    "a job that waits for ever": ("I1", inserted()),
    "a run that was taken from a healthy node": (
        "I2",
        inserted()
        .claim("a")
        .note("start", "a")
        .wait(3 * LEASE)
        .change("available")
        .run("b")
        .change("completed"),
    ),
    "a rescue before the lease has ended": (
        "I2",
        inserted()
        .claim("a")
        .note("start", "a")
        .fault("kill", "a")
        .change("available")
        .run("b")
        .change("completed"),
    ),
    "a rescue of a node that was frozen too briefly": (
        "I2",
        frozen(0.2).note("end", "b").change("completed").note("end", "a", 1),
    ),
    "a rescue long after the node had come back": (
        "I2",
        inserted()
        .claim("a")
        .note("start", "a")
        .fault("freeze", "a", 2 * LEASE)
        .wait(4 * LEASE)
        .change("available")
        .run("b")
        .change("completed"),
    ),
    "a rescue of a job that was fetched after the freeze": (
        "I2",
        inserted()
        .fault("freeze", "a", 2 * LEASE)
        .wait(2 * LEASE)
        .claim("a")
        .note("start", "a")
        .change("available")
        .run("b")
        .change("completed"),
    ),
    "a job discarded while a healthy node runs it": (
        "I2",
        inserted().claim("a").note("start", "a").change("discarded").note("end", "a"),
    ),
    "two runs at once": (
        "I2",
        inserted()
        .claim("a")
        .note("start", "a")
        .change("available", attempt=0)
        .run("b")
        .change("completed")
        .note("end", "a", 1),
    ),
    "a job claimed by two": (
        "I2",
        inserted().claim("a").claim("b").note("start", "b").note("end", "b").change("completed"),
    ),
    "a late outcome that overwrites another run": (
        "I3",
        frozen(2 * LEASE).note("end", "a", 1).change("completed").note("end", "b", 2),
    ),
    "an outcome of a job that nobody ran": ("I3", inserted().claim("a").change("completed")),
    "a late error in a row that has ended": (
        "I3",
        inserted().run("a").change("completed").change("completed", errors=1),
    ),
    "an attempt that was not counted": (
        "I4",
        inserted()
        .change("executing", node="a", owner="a", attempt=0)
        .note("start", "a")
        .note("end", "a")
        .change("completed"),
    ),
    "an attempt given back by a failure": (
        "I4",
        inserted().run("a").change("retryable", attempt=0).change("available").run("b").change("completed"),
    ),
    "more attempts than allowed": (
        "I4",
        Written().change("available", max_attempts=1, attempt=1).run("a").change("completed"),
    ),
    "one claim that ran twice": (
        "I4",
        inserted().run("a").note("start", "a", run="again").note("end", "a", run="again").change("completed"),
    ),
    "a run without a claim": (
        "I4",
        inserted().run("a").change("completed").note("start", "b").note("end", "b"),
    ),
    "a finished job that runs again by itself": (
        "I5",
        inserted().run("a").change("completed").run("b").change("completed"),
    ),
    "a job deleted while it runs": ("I5", inserted().run("a").change(None)),
    "a job inserted as completed": ("I5", Written().change("completed")),
    "a node that stopped and left a job": (
        "I10",
        inserted()
        .claim("a")
        .note("start", "a")
        .note("interrupted", "a")
        .fault("stop", "a")
        .wait(1)
        .change("available", attempt=0)
        .run("b")
        .change("completed"),
    ),
    "a node that stopped and goes on": (
        "I10",
        inserted()
        .claim("a")
        .note("start", "a")
        .change("available", attempt=0)
        .fault("stop", "a")
        .note("interrupted", "a", 1)
        .run("b")
        .change("completed"),
    ),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_rule_is_found(broken: str) -> None:
    rule, written = BROKEN[broken]
    assert {violation.rule for violation in written.found()} == {rule}


def test_a_job_that_was_never_stored_is_found() -> None:
    assert [violation.rule for violation in a_good_history().found(expect=[1, 77])] == ["I1"]


def test_a_test_can_allow_jobs_that_still_wait() -> None:
    assert inserted().found(at_rest=False) == []


def test_silent_jobs_need_no_ledger() -> None:
    written = Written().change("retryable", max_attempts=3, attempt=4).change("available").change("discarded")
    assert written.found(silent=[1]) == []
    assert written.found() != []


def test_effects_beyond_one_per_job_are_counted() -> None:
    written = a_good_history()
    # The failed, the snoozed, the cancelled and the frozen job ended twice.
    assert History(written.changes, written.ledger).repeated_effects() == 4


def test_attempts_without_a_row_or_with_two_are_found() -> None:
    written = a_good_history().change("available", job=77).change(None, job=77)
    ended = [
        (change.job, change.old_attempt, change.node, change.owner)
        for change in written.changes
        # Job 9 is deleted.
        if change.old == "executing" and change.new != "executing" and change.job != 9
    ]

    def found(*rows: tuple[int, int, str | None, str | None]) -> list[Violation]:
        return check(History(written.changes, written.ledger, written.faults, [*rows]), lease=LEASE)

    assert found(*ended) == []
    for rows in (ended[1:], [*ended, ended[0]], [*ended, (77, 1, "a", "a")]):
        assert [violation.rule for violation in found(*rows)] == ["I11"]
