"""What `oban jobs show` prints about a job."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from rich.highlighter import JSONHighlighter
from rich.text import Text

from oban import display
from oban.cli import output
from oban.cli.job_documents import json_able, text, texts
from oban.models import Job

#: How much of a document or a traceback is shown, in characters. `--json` prints all of it.
_LONGEST = 20_000
_LABEL = 14


def show_job(job: Job) -> None:
    """Print everything about a job, for people."""
    output.write(_heading(job))
    for label, value in _fields(job):
        output.write(Text.assemble((label.ljust(_LABEL), "bright_black"), value))
    for title, document in (("Args", job.args), ("Meta", _without_progress(job.meta))):
        if document not in ({}, None):
            _section(title, _highlighted(document))
    if error := _last_error(job):
        _section(_error_title(error), Text(_cut(output.printable(_error_text(error)))))


def last_error(job: Job) -> str:
    """The last line of a job's last error, such as `ValueError: no such customer`; empty without one."""
    error = _last_error(job)
    lines = [line for line in _error_text(error).splitlines() if line.strip()] if error else []
    return lines[-1].strip() if lines else ""


def progress(job: Job) -> str | None:
    """The progress that the job's last attempt has reported, such as `3 of 10 (30 %): reading`."""
    stored = job.meta.get("progress") if isinstance(job.meta, dict) else None
    if not isinstance(stored, dict) or stored.get("attempt") != job.attempt:
        return None
    done, total, message = (stored.get(key) for key in ("done", "total", "message"))
    shown = display.shown(done, 40)
    if total is not None:
        shown += f" of {display.shown(total, 40)}"
        if isinstance(done, (int, float)) and isinstance(total, (int, float)) and total > 0:
            shown += f" ({done / total:.0%})"
    return f"{shown}: {message}" if isinstance(message, str) and message else shown


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
    yield "progress", progress(job)
    yield "inserted", _time(job.inserted_at)
    yield "due", _time(job.scheduled_at)
    yield "last attempt", _time(job.attempted_at)
    for state in ("completed", "cancelled", "discarded"):
        yield state, _time(getattr(job, f"{state}_at"))
    yield "node", ", producer ".join(texts(job.attempted_by)[:2]) or None
    yield "unique key", None if job.unique_key is None else text(job.unique_key)


def _time(value: datetime | None) -> str | None:
    if value is None:
        return None
    seconds = (datetime.now(UTC) - value).total_seconds()
    distance = _duration(abs(seconds))
    return f"{output.time(value)} UTC ({f'{distance} ago' if seconds >= 0 else f'in {distance}'})"


def _duration(seconds: float) -> str:
    """A duration in its largest unit, such as `2 hours`."""
    for unit, size in (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        if (number := int(seconds // size)) or unit == "second":
            return f"{number:,} {unit}" if number == 1 else f"{number:,} {unit}s"
    raise AssertionError("unreachable")


def _without_progress(meta: Any) -> Any:
    return (
        {key: value for key, value in meta.items() if key != "progress"} if isinstance(meta, dict) else meta
    )


def _section(title: str, content: Text) -> None:
    output.write(Text.assemble("\n", (title, "bold")))
    output.write(content)


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
    attempt, at = (display.shown(error[key], 40).strip("'") for key in ("attempt", "at"))
    return output.printable(f"Last error, of attempt {attempt} at {at}")
