"""Everything about one job, as `oban top` shows it."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from oban import redacted
from oban.cli import output
from oban.cli.job_details import log_line
from oban.client import Oban
from oban.documents.jobs import json_able, text, texts
from oban.error_texts import log_safe
from oban.models import Job
from oban.models.attempt import Attempt

#: How many lines of one value are shown, and how many of the last attempts.
_LINES = 200
_ATTEMPTS = 50
_INDENT = 2


async def describe(oban: Oban, job_id: int) -> RenderableType:
    """The fields of a job, why it does or does not run, its args and meta, and its attempts."""
    job = await oban.get_job(job_id)
    if job is None:
        return Text(f"Job {job_id} is not there any more.", style="red")
    attempts = await oban.list_attempts(job_id)
    redacted.job(job, attempts)
    return Group(
        Text("\n").join(_fields(job)),
        *_section("Why", _lines(str(await oban.why(job_id)))),
        *_section("Args", _json(job.args)),
        *_section("Meta", _json(job.meta)),
        *_attempts(attempts[-_ATTEMPTS:]),
        *_errors(job, {attempt.error for attempt in attempts}),
    )


def _fields(job: Job) -> Iterator[Text]:
    rows: list[tuple[str, Text | str]] = [
        ("state", output.state("unknown" if job.state is None else job.state.value)),
        ("worker", log_safe(job.worker)),
        ("queue", log_safe(job.queue)),
        ("attempt", f"{job.attempt} of {job.max_attempts}"),
        ("priority", str(job.priority)),
        ("node", ", ".join(map(log_safe, texts(job.attempted_by)[:1])) or "-"),
    ]
    if job.tags:
        rows.append(("tags", ", ".join(map(log_safe, texts(job.tags)))))
    for name in ("inserted", "scheduled", "attempted", "completed", "cancelled", "discarded"):
        at = getattr(job, f"{name}_at")
        if at is not None:
            rows.append((name, f"{output.time(at)} UTC"))
    for name, value in rows:
        yield Text.assemble((f"{name:<11}", "dim"), value)


def _attempts(attempts: Iterable[Attempt]) -> Iterator[RenderableType]:
    for attempt in reversed([*attempts]):
        took = ""
        if attempt.started_at is not None:
            took = f", after {(attempt.ended_at - attempt.started_at).total_seconds():.1f} s"
        title = f"Attempt {attempt.attempt}: {attempt.outcome} at {output.time(attempt.ended_at)} UTC{took}"
        node = "" if attempt.node is None else f" on {log_safe(attempt.node)}"
        lines: list[str] = []
        for entry in attempt.log if isinstance(attempt.log, list) else []:
            lines += _lines(log_line(entry))
        lines += [] if attempt.error is None else _lines(attempt.error)
        yield from _section(output.printable(title + node), lines)


def _errors(job: Job, shown: set[str | None]) -> Iterator[RenderableType]:
    """The errors of attempts that have no history."""
    for error in reversed(job.errors if isinstance(job.errors, list) else []):
        values = error if isinstance(error, dict) else {"error": error}
        if (message := text(values.get("error"))) not in shown:
            title = f"Error of attempt {log_safe(values.get('attempt'))}, {log_safe(values.get('at'))}"
            yield from _section(title, _lines(message))


def _section(title: str, lines: list[str]) -> Iterator[RenderableType]:
    yield Text(f"\n{title}", style="bold")
    if lines:
        yield Padding(Text("\n".join(lines)), (0, 0, 0, _INDENT))


def _json(value: Any) -> list[str]:
    return _lines(json.dumps(json_able(value), indent=2, ensure_ascii=False))


def _lines(value: str) -> list[str]:
    """The lines of a text without control characters."""
    lines = output.printable(value).split("\n")
    if len(lines) <= _LINES:
        return lines
    half = _LINES // 2
    return [*lines[:half], f"… {len(lines) - 2 * half:,} lines …", *lines[-half:]]
