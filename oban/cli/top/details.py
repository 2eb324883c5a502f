"""Everything about one job, as `oban top` shows it."""

import json
from collections.abc import Iterable
from typing import Any

from rich.text import Text

from oban.cli import job_documents as texts
from oban.cli import output
from oban.cli.job_documents import json_able
from oban.client import Oban
from oban.error_texts import log_safe
from oban.models import Job

#: How many lines of one value are shown.
_LINES = 200


async def describe(oban: Oban, job_id: int) -> Text:
    """The fields of a job, why it does or does not run, its args, meta and errors."""
    job = await oban.get_job(job_id)
    if job is None:
        return Text(f"Job {job_id} is not there any more.", style="red")
    text = Text()
    _fields(text, job)
    _section(text, "Why", _lines(str(await oban.why(job_id))))
    _section(text, "Args", _json(job.args))
    _section(text, "Meta", _json(job.meta))
    for error in reversed(job.errors if isinstance(job.errors, list) else []):
        values = error if isinstance(error, dict) else {"error": error}
        title = f"Error of attempt {log_safe(values.get('attempt'))}, {log_safe(values.get('at'))}"
        _section(text, title, _lines(texts.text(values.get("error"))))
    return text


def _fields(text: Text, job: Job) -> None:
    rows: list[tuple[str, Text | str]] = [
        ("state", output.state(job.state.value)),
        ("worker", log_safe(job.worker)),
        ("queue", log_safe(job.queue)),
        ("attempt", f"{job.attempt} of {job.max_attempts}"),
        ("priority", str(job.priority)),
        ("node", log_safe(job.attempted_by[0]) if job.attempted_by else "-"),
    ]
    if job.tags:
        rows.append(("tags", ", ".join(map(log_safe, job.tags))))
    for name in ("inserted", "scheduled", "attempted", "completed", "cancelled", "discarded"):
        at = getattr(job, f"{name}_at")
        if at is not None:
            rows.append((name, f"{output.time(at)} UTC"))
    for name, value in rows:
        text.append(f"{name:<11}", style="dim").append_text(Text(value) if isinstance(value, str) else value)
        text.append("\n")


def _section(text: Text, title: str, lines: Iterable[str]) -> None:
    text.append(f"\n{title}\n", style="bold")
    for line in lines:
        text.append(f"  {line}\n")


def _json(value: Any) -> list[str]:
    return _lines(json.dumps(json_able(value), indent=2, ensure_ascii=False))


def _lines(value: str) -> list[str]:
    """The lines of a text without control characters."""
    lines = output.printable(value).split("\n")
    if len(lines) <= _LINES:
        return lines
    half = _LINES // 2
    return [*lines[:half], f"… {len(lines) - 2 * half:,} lines …", *lines[-half:]]
