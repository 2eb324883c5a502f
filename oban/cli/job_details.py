"""What `oban jobs show` prints about a job."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.highlighter import JSONHighlighter
from rich.text import Text

from oban import display
from oban.amounts import duration
from oban.cli import output
from oban.cli.columns import Column, time_column
from oban.documents.jobs import json_able, text, texts
from oban.error_texts import stored_error_line
from oban.models import Attempt, Job
from oban.types import ENDED_STATES

#: How much of a document or a traceback is shown, in characters. `--json` prints all of it.
_LONGEST = 20_000
_LABEL = 14
#: How many attempts are shown.
_ATTEMPTS = 20
_COLUMNS = (
    Column("ATTEMPT", right=True),
    Column("OUTCOME"),
    time_column("BEGAN (UTC)", rank=2),
    Column("TOOK", rank=3, right=True),
    Column("NODE", rank=4, least=8),
    Column("ERROR", rank=1, least=12),
)
#: The last column, if any attempt belongs to a trace.
_TRACE = Column("TRACE", rank=5)
_STYLES = {
    "completed": "green",
    "failed": "magenta",
    "discarded": "red",
    "rescued": "yellow",
}


def show_job(job: Job, attempts: Sequence[Attempt]) -> None:
    """Print everything about a job and its attempts, for people."""
    output.write(_heading(job))
    for label, value in _fields(job):
        output.write(Text.assemble((label.ljust(_LABEL), "bright_black"), value))
    for title, document in (("Args", job.args), ("Meta", _without_progress(job.meta))):
        if document not in ({}, None):
            _section(title, _highlighted(document))
    if attempts:
        output.write(_title("Attempts"))
        shown = attempts[-_ATTEMPTS:]
        if any(attempt.trace for attempt in shown):
            traces = (Text(output.printable(text(attempt.trace or ""))) for attempt in shown)
            rows = ((*_cells(each), trace) for each, trace in zip(shown, traces, strict=True))
            output.table((*_COLUMNS, _TRACE), rows)
        else:
            output.table(_COLUMNS, map(_cells, shown))
        if (more := len(attempts) - _ATTEMPTS) > 0:
            output.write(Text(f"{more:,} earlier ones, which --json prints"))
    if error := _last_error(job):
        _section(_error_title(error), Text(_cut(output.printable(_error_text(error)))))
    if lines := _log(attempts):
        _section(f"Log of attempt {attempts[-1].attempt}", Text(_cut(output.printable("\n".join(lines)))))


def _heading(job: Job) -> Text:
    state = "unknown" if job.state is None else job.state.value
    return Text.assemble((f"Job {job.id}", "bold"), " is ", output.state(state))


def _fields(job: Job) -> Iterator[tuple[str, Text]]:
    for label, value in _texts(job):
        if value is not None:
            yield label, Text(output.printable(value))


def _texts(job: Job) -> Iterator[tuple[str, str | None]]:
    yield "worker", text(job.worker)
    yield "queue", text(job.queue)
    yield "priority", str(job.priority)
    yield "attempt", f"{job.attempt} of {job.max_attempts}"
    yield "tags", ", ".join(texts(job.tags)) or None
    yield "progress", None if job.last_progress is None else str(job.last_progress)
    yield "inserted", _time(job.inserted_at)
    yield "due", _time(job.scheduled_at)
    yield "last attempt", _time(job.attempted_at)
    for state in ENDED_STATES:
        yield state.value, _time(getattr(job, f"{state.value}_at"))
    yield "node", ", producer ".join(texts(job.attempted_by)[:2]) or None
    yield "unique key", None if job.unique_key is None else text(job.unique_key)


def _time(value: datetime | None) -> str | None:
    if value is None:
        return None
    seconds = (datetime.now(UTC) - value).total_seconds()
    distance = duration(abs(seconds))
    return f"{output.time(value)} UTC ({f'{distance} ago' if seconds >= 0 else f'in {distance}'})"


def _without_progress(meta: Any) -> Any:
    return (
        {key: value for key, value in meta.items() if key != "progress"} if isinstance(meta, dict) else meta
    )


def _section(title: str, content: Text) -> None:
    output.write(_title(title))
    output.write(content)


def _title(title: str) -> Text:
    return Text.assemble("\n", (title, "bold"))


def _cells(attempt: Attempt) -> tuple[str | Text, ...]:
    took = "-" if attempt.started_at is None else _took(attempt.ended_at - attempt.started_at)
    outcome = Text(output.printable(text(attempt.outcome)), style=_STYLES.get(text(attempt.outcome), ""))
    node = "-" if attempt.node is None else text(attempt.node)
    error = "" if attempt.error is None else stored_error_line(text(attempt.error))
    return str(attempt.attempt), outcome, output.time(attempt.started_at), took, node, error


def _took(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds:.3f} s" if seconds < 60 else duration(seconds)


def _log(attempts: Sequence[Attempt]) -> list[str]:
    """The lines of the log of the last attempt, such as `22:17:31 INFO 3 pages`."""
    lines = attempts[-1].log if attempts else None
    return [log_line(line) for line in lines] if isinstance(lines, list) else []


def log_line(line: Any) -> str:
    """A line of the log of an attempt, such as `22:17:31 INFO 3 pages`."""
    if not isinstance(line, dict):
        return display.shown(line)
    at, level, words = (text(line.get(key)) for key in ("at", "level", "text"))
    with suppress(ValueError):
        at = f"{datetime.fromisoformat(at):%H:%M:%S}"
    return f"{at} {level} {words}"


def _highlighted(document: Any) -> Text:
    shown = json.dumps(json_able(document), indent=2, ensure_ascii=False)
    highlighted = Text(_cut(output.printable(shown)))
    JSONHighlighter().highlight(highlighted)
    return highlighted


def _cut(shown: str) -> str:
    if len(shown) <= _LONGEST:
        return shown
    left_out = len(shown) - _LONGEST
    return f"{shown[:_LONGEST]}\n… {left_out:,} more characters, which --json prints"


def _last_error(job: Job) -> Any:
    return job.errors[-1] if isinstance(job.errors, list) and job.errors else None


def _error_text(error: Any) -> str:
    found = error.get("error") if isinstance(error, dict) else error
    return text(found)


def _error_title(error: Any) -> str:
    if not isinstance(error, dict):
        return "Last error"
    attempt, at = (display.shown(error.get(key), 40).strip("'") for key in ("attempt", "at"))
    return output.printable(f"Last error, of attempt {attempt} at {at}")
