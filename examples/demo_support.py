"""Helpers of the demo: finding files, the live display, the final table and the check of the results."""

import asyncio
import hashlib
import logging
import sys
import sysconfig
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from oban import Job, JobState

Plan = dict[str, list[Job]]  # jobs, grouped by what the demo does with them
Say = Callable[[str], None]
Counts = Counter[tuple[str, JobState]]

STATES: list[JobState] = [state for state in JobState if state is not JobState.SUSPENDED]
ENDED = (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
COLOURS = {"completed": "green", "retryable": "yellow", "cancelled": "magenta", "discarded": "red"}

console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)


def find_files(folder: Path | None, at_least: int) -> list[Path]:
    """Return the files below a folder, except hidden files, caches and installed packages.

    The default is the Python sources of the standard library. Raises `OSError` if there are fewer than
    `at_least` files.
    """
    root = (folder or Path(sysconfig.get_path("stdlib"))).resolve()

    def wanted(path: Path) -> bool:
        parts = path.relative_to(root).parts
        skipped = any(part.startswith(".") or part in ("__pycache__", "site-packages") for part in parts)
        return not skipped and path.is_file()

    files = sorted(path for path in root.rglob("*" if folder else "*.py") if wanted(path))
    if len(files) < at_least:
        raise OSError(f"{root} has {len(files)} files; at least {at_least} are needed")
    return files


# -- The live display ------------------------------------------------------------------------------


@asynccontextmanager
async def watching(engine: AsyncEngine, queues: Iterable[str]) -> AsyncIterator[Say]:
    """Show queues, states and throughput until the block ends; yields a function that prints a line.

    In a terminal this is a live table; elsewhere, a plain line once a second.
    """
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    display = Display(engine, list(queues), live)
    logging.basicConfig(format="%(message)s", handlers=[Warnings(display.say)])
    with live or nullcontext():
        watcher = asyncio.create_task(display.run())
        try:
            yield display.say
        finally:
            display.over.set()
            await watcher


class Display:
    def __init__(self, engine: AsyncEngine, queues: list[str], live: Live | None) -> None:
        self.engine = engine
        self.queues = queues
        self.live = live
        self.over = asyncio.Event()
        self.started = time.monotonic()
        # Times and the number of jobs that had ended by then, for the throughput of the last second.
        self.samples: deque[tuple[float, int]] = deque([(self.started, 0)])

    def say(self, line: str, style: str = "") -> None:
        """Print a line above the live table."""
        text = Text.assemble((f"{time.monotonic() - self.started:5.1f} s  ", "dim"), (line, style))
        console.print(text, soft_wrap=True)

    async def run(self) -> None:
        """Count and draw until `over` is set, and then once more."""
        while True:
            last = self.over.is_set()
            # Like the runner, the display survives a short outage of the database; the runner logs it.
            with suppress(SQLAlchemyError, OSError):
                if counts := await self.count():
                    self.draw(counts)
            if last:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self.over.wait(), 0.1 if self.live else 1)

    async def count(self) -> Counts:
        """Count the jobs by queue and state."""
        query = select(Job.queue, Job.state, func.count()).where(Job.queue.in_(self.queues))
        async with AsyncSession(self.engine) as session:
            rows = await session.execute(query.group_by(Job.queue, Job.state))
        return Counter({(queue, state): number for queue, state, number in rows})

    def draw(self, counts: Counts) -> None:
        of_state = {state: sum(counts[queue, state] for queue in self.queues) for state in STATES}
        now, ended = time.monotonic(), sum(of_state[state] for state in ENDED)
        self.samples.append((now, ended))
        while len(self.samples) > 2 and now - self.samples[1][0] > 1:
            self.samples.popleft()
        since, before = self.samples[0]
        speed = (ended - before) / max(now - since, 0.001)
        summary = f"{ended:,} of {counts.total():,} jobs have ended, {speed:,.0f} jobs/s"
        if self.live is None:
            self.say(f"{summary}: " + ", ".join(f"{n:,} {state}" for state, n in of_state.items() if n))
            return
        table = Table("state", *self.queues, "all", border_style="dim")
        for column in table.columns[1:]:
            column.justify = "right"
        for state, number in of_state.items():
            numbers = [counts[queue, state] for queue in self.queues] + [number]
            table.add_row(state.value, *(f"{n:,}" for n in numbers), style=COLOURS.get(state, ""))
        line = Table.grid(padding=(0, 2))
        line.add_row(ProgressBar(total=counts.total(), completed=ended, width=30), summary)
        self.live.update(Group(table, line), refresh=True)


class Warnings(logging.Handler):
    """Prints the library's warnings, such as a failed attempt, among the other lines."""

    def __init__(self, say: Callable[[str, str], None]) -> None:
        super().__init__(logging.WARNING)
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say(f"{record.levelname.lower()}: {self.format(record)}", "yellow")


# -- The final table -------------------------------------------------------------------------------


def report(plan: Plan, rows: list[Job]) -> bool:
    """Print a table of the rows and the problems that `check` finds; return whether there are none."""
    found = {job.id: job for job in rows}
    table = Table(title="What happened, read back with select(Job)", border_style="dim")
    table.add_column("plan", style="bold", no_wrap=True)
    table.add_column("jobs", justify="right", no_wrap=True)
    table.add_column("attempts", justify="right")
    table.add_column("one of them")
    for kind, jobs in plan.items():
        there = [found[job.id] for job in jobs if job.id in found]
        states = Counter(job.state.value for job in there)
        states["deleted"] = len(jobs) - len(there)
        shown = ", ".join(f"{number:,} {state}" for state, number in states.items() if number)
        attempts = ", ".join(sorted({str(job.attempt) for job in there}))
        table.add_row(kind, shown, attempts, escape(story(kind, there[-1])) if there else "")
    console.print(table)
    problems = check(plan, rows)
    for problem in problems[:10]:
        console.print(f"[red]WRONG:[/] {escape(problem)}")
    if problems:
        console.print(f"[red]{len(problems):,} problems were found.[/]")
    else:
        recorded = [job.meta["return"] for job in rows if job.meta.get("recorded")]
        lines, size = (sum(value[key] for value in recorded) for key in ("lines", "bytes"))
        console.print(
            f"{len(recorded):,} files with {lines:,} lines and {size:,} bytes were read and recorded."
        )
        console.print("[green]Everything is correct:[/] each file was read again to compare.")
    return not problems


def story(kind: str, job: Job) -> str:
    """Summarise a row in a few words."""
    name, value = Path(job.args["path"]).name, job.meta.get("return")
    if kind == "rescheduled":
        times = (f"{at:%H:%M:%S}" if at else "?" for at in (job.inserted_at, job.completed_at))
        return f"{name}: enqueued {', completed '.join(times)}"
    if job.errors:
        return f"{name}: {last_line(job.errors[-1]['error'])}"
    return f"{name}: {str(value)[:38]}…" if value else name


# -- The check: recomputes, in another way, what the jobs recorded ---------------------------------

ERRORS = {
    "retried": ["OSError: the disk is busy, attempt 1", "OSError: the disk is busy, attempt 2"],
    "cancelled": ["stopped at a safe point, after "],
}


def check(plan: Plan, rows: list[Job]) -> list[str]:
    """Return one sentence for each difference between the plan and the rows."""
    found = {job.id: job for job in rows}
    counts = Counter(job.state.value for job in rows)
    cancelled, deleted = len(plan["cancelled"]), len(plan["deleted"])
    due = {"cancelled": cancelled, "completed": sum(map(len, plan.values())) - cancelled - deleted}
    problems = [] if counts == due else [f"the jobs per state are {dict(counts)}, not {due}"]
    for kind, jobs in plan.items():
        for job in jobs:
            path = Path(job.args["path"])
            faults = check_job(kind, path, found.get(job.id))
            problems += [f"job {job.id} ({path.name}, to be {kind}) {fault}" for fault in faults]
    return problems


def check_job(kind: str, path: Path, job: Job | None) -> Iterator[str]:
    if job is None or kind == "deleted":
        if (job is None) != (kind == "deleted"):
            yield "is missing" if job is None else "was not deleted"
        return
    if job.attempt != (3 if kind == "retried" else 1):
        yield f"took {job.attempt} attempts"
    errors, due = [last_line(entry["error"]) for entry in job.errors], ERRORS.get(kind, [])
    if len(errors) != len(due) or not all(map(str.startswith, errors, due)):
        yield f"has the errors {errors}, not {due}"
    if job.state != ("cancelled" if kind == "cancelled" else "completed"):
        yield f"is {job.state}"
    elif kind == "cancelled":
        return
    elif job.completed_at is None or job.completed_at < job.scheduled_at:
        yield f"is completed at {job.completed_at}, before it was due at {job.scheduled_at}"
    elif job.meta.get("return") != (again := measure(path)):
        yield f"recorded {job.meta.get('return')}, not {again}"


def last_line(error: str) -> str:
    """Return the line of a traceback that names the exception."""
    return (error.splitlines() or [""])[-1]


def measure(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        lines = sum(line.endswith(b"\n") for line in file)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"lines": lines, "bytes": path.stat().st_size, "sha256": digest}
