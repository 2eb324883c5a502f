"""`explain`: all reasons why a job does not run, the decisive one first. The reasons by the job's state:

- one that has ended, or is suspended: until somebody retries it, and whether a unique job prevents that;
- one that is scheduled or retryable: until it is due, or until a node has noticed that it is;
- one that is available, or due: what keeps the nodes from fetching it (`waiting.queue_reasons`);
- one that executes: where, and whether that node is alive (`executing`).
"""

import dataclasses
import math
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from oban import error_texts, fields, redaction
from oban.amounts import counted, duration
from oban.config import Options
from oban.database.transaction import Transaction
from oban.diagnosis import executing, waiting
from oban.diagnosis.explanation import Explanation, Reason
from oban.diagnosis.texts import Commands, listed, named, since
from oban.encoding import Undecodable
from oban.error_texts import last_error
from oban.models import Job
from oban.repository import job_facts, job_obstacles
from oban.repository.job_facts import Facts
from oban.repository.selection import MAX_ID
from oban.type_expressions import FIRST_TIME
from oban.types import ENDED_STATES, JobState


def explain(tx: Transaction, job_id: int, options: Options) -> Explanation:
    """Explain why a job does or does not run. It reads a bounded number of rows."""
    commands = Commands(options)
    facts = job_facts.read_facts(tx, job_id if 0 < job_id <= MAX_ID else 0, options.lease)
    job = facts.job
    if job is None:
        missing = _with_schemas(tx, _missing(job_id, facts, options))
        return Explanation(job_id, None, None, None, False, (missing,))
    reasons: list[Reason] = [*_bad_row(job, facts, commands)]
    runs = False
    match job.state:
        case JobState.EXECUTING:
            runs, of_run = executing.reasons(job, facts, options, commands)
            reasons.extend(of_run)
        case JobState.AVAILABLE:
            reasons.extend(waiting.available(job, facts, options, commands))
        case JobState.SCHEDULED | JobState.RETRYABLE:
            reasons.extend(waiting.scheduled(job, facts, options, commands))
        case JobState.SUSPENDED:
            reasons.append(
                Reason(
                    "suspended",
                    "It is suspended: it waits until somebody retries it.",
                    "Retry it to let it run:",
                    (commands.jobs("retry", job.id),),
                )
            )
        case None:
            reasons.insert(0, _unknown_state(facts))
        case _:
            reasons.extend(_ended(job, facts, commands))
    if job.state in (*ENDED_STATES, JobState.SUSPENDED, JobState.SCHEDULED, JobState.RETRYABLE):
        reasons.extend(_against_retry(tx, job, commands))
    if {reason.code for reason in reasons} & {"not_fetched", "not_staged"}:
        reasons = [*_locked(tx, job), *reasons]
    if not any(node.is_alive for node in facts.nodes):
        reasons = [_with_schemas(tx, reason) if reason.code == "no_node" else reason for reason in reasons]
    return Explanation(job.id, job.state, _text(job.queue), _text(job.worker), runs, tuple(reasons))


def _text(value: object) -> str:
    # SQLite stores values of any type in a column, if another program writes them.
    return value if isinstance(value, str) else repr(value)


def _missing(job_id: int, facts: Facts, options: Options) -> Reason:
    where = "database" if options.prefix is None else f"schema {named(options.prefix)}"
    if facts.newest_id is None:
        text, advice = f"There is no job {job_id}: this {where} has no jobs.", "Check which database this is."
    elif job_id > facts.newest_id:
        text = f"There is no job {job_id}: the newest job of this {where} is {facts.newest_id}."
        advice = (
            "Check which database and which prefix it was inserted into, and whether that transaction was"
            " committed."
        )
    else:
        text = f"There is no job {job_id} any more, or it was never committed."
        advice = (
            "Somebody deleted it, or the leader did: it deletes completed and cancelled jobs after 1 day and"
            " discarded ones after 7 days, unless the option retention of the nodes says otherwise."
        )
    return Reason("missing", text, advice)


def _ended(job: Job, facts: Facts, commands: Commands) -> Iterator[Reason]:
    ended_at = getattr(job, f"{job.state}_at")
    text = f"It has ended: it was {job.state} at {since(ended_at, facts.now)}."
    error = last_error(redaction.value(job, job.errors))
    if job.state == JobState.COMPLETED:
        yield Reason("completed", text, "To run it once more, retry it:", (commands.jobs("retry", job.id),))
        return
    if job.state == JobState.DISCARDED and _numbers(job.attempt, job.max_attempts):
        if job.attempt >= job.max_attempts:
            text += f" It has used {_of(job.attempt, job.max_attempts)}."
        else:
            text += f" It was in attempt {job.attempt} of {job.max_attempts}."
    if error:
        text += f" The last error is: {error}"
    advice = "To run it again, retry it, which allows one more attempt if none is left:"
    if job.state == JobState.DISCARDED:
        advice = "Correct the cause, and then retry it, which allows one more attempt if none is left:"
    yield Reason(job.state.value, text, advice, (commands.jobs("retry", job.id),))


def _of(used: int, most: int) -> str:
    return f"{used} of {counted(most, 'attempt')}"


def _with_schemas(tx: Transaction, reason: Reason) -> Reason:
    """The reason, with the schemas in which the job, or a node, may be instead."""
    if not (schemas := job_obstacles.other_schemas(tx)):
        return reason
    text = f"{reason.text} Other tables of Oban, with jobs and nodes of their own, are in: {listed(schemas)}."
    return dataclasses.replace(reason, text=text)


def _locked(tx: Transaction, job: Job) -> Iterator[Reason]:
    """The reason that a transaction has locked the job's row: the nodes skip such rows."""
    if (locker := job_obstacles.locker(tx, job.id)) is None:
        return
    who = error_texts.log_safe(locker.what)
    age = "" if math.isnan(locker.seconds) else f", whose transaction began {duration(locker.seconds)} ago"
    yield Reason(
        "locked",
        f"A transaction has locked its row, and the nodes skip it until that ends: {who}{age}.",
        "Commit that transaction or roll it back, where the application has left it open. Else end its"
        f" session, with the SQL: {locker.remedy}",
    )


def _against_retry(tx: Transaction, job: Job, commands: Commands) -> Iterator[Reason]:
    """What would let a retry change nothing."""
    if isinstance(job.attempt, int) and job.attempt >= fields.MAX_ATTEMPTS:
        yield Reason(
            "attempts_limit",
            f"A retry changes nothing: it has used {job.attempt:,} attempts, and no job can have more.",
            "Enqueue a new job with the same args.",
        )
    elif (conflict := job_obstacles.conflict(tx, job)) is not None:
        other = conflict.job_id
        text = (
            f"A retry changes nothing for now: the job is unique, and job {other}, which is"
            f" {conflict.state}, is in the way."
        )
        if conflict.ends_by_cancel:
            advice = f"Wait until job {other} is out of the way, or cancel it first:"
            command = commands.jobs("cancel", other)
        else:
            advice = f"Wait until job {other} is out of the way, or delete it first:"
            command = commands.jobs("delete", other)
        yield Reason("unique", text, advice, (command,))


def _unknown_state(facts: Facts) -> Reason:
    return Reason(
        "unknown_state",
        f"Another program has stored the state {named(facts.stored_state)}, which Oban does not have.",
        "No node touches it. Find the program that writes such rows, and then delete the row, or set"
        " its state to one of Oban's, with SQL.",
    )


def _bad_row(job: Job, facts: Facts, commands: Commands) -> Iterator[Reason]:
    """The columns that have values which Oban does not store."""
    faults = [
        f"{column} is {named(repr(value))}"
        for column, type_ in (
            *((column, int) for column in ("attempt", "max_attempts", "priority")),
            *((column, str) for column in ("queue", "worker")),
        )
        if not isinstance(value := getattr(job, column), type_)
    ]
    faults.extend(
        f"{column} is not JSON"
        for column in ("args", "meta", "errors", "tags", "attempted_by")
        if isinstance(getattr(job, column), Undecodable)
    )
    if not isinstance(job.scheduled_at, datetime) or job.scheduled_at == FIRST_TIME:
        faults.append("scheduled_at is not a time")
    if not faults:
        return
    yield Reason(
        "bad_row",
        f"Another program has stored values that Oban does not: {'; '.join(faults)}.",
        "A node discards such a job, or leaves it alone. Correct the row with SQL, or delete the job:",
        (commands.jobs("delete", job.id),),
    )


def _numbers(*values: Any) -> bool:
    return all(isinstance(value, int) for value in values)
