"""Workers that run in child processes, which import this module."""

import contextvars
import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from oban import Cancel, Job, Record, Snooze, Worker, current_job, job, worker

setting: contextvars.ContextVar[str] = contextvars.ContextVar("setting", default="none")


class Unmakeable(Exception):
    """An exception that the node cannot make again."""

    def __reduce__(self) -> Any:
        return (print, ())


class InProcess(Worker, executor="process"):
    """Runs the action that its args name."""

    def process(self, job: Job) -> Any:
        return ACTIONS[job.args["do"]](job)

    def backoff(self, job: Job, error: BaseException) -> float | None:
        return None if str(error) == "no more" else 3600


class Limited(InProcess, timeout=0.3):
    pass


@job(executor="process", aliases="tests.renamed")
def renamed(page: int) -> Snooze:
    return Snooze(3600, meta={"page": page, "none": None})


class EnqueuesSync(Worker, executor="process", max_attempts=1):
    """Tries to enqueue through the node, which is in another process."""

    def process(self, job: Job) -> None:
        InProcess.enqueue_sync({"do": "nothing"})


class Unmade(Worker, executor="process"):
    """Can be instantiated only in the node."""

    def __init__(self) -> None:
        if os.environ.get("OBAN_TEST_NODE") != str(os.getpid()):
            raise RuntimeError("not here")

    def process(self, job: Job) -> None:
        return None


@job(executor="process", timeout=60)
def add(a: int, b: int = 1) -> Record:
    running = current_job()
    assert running is not None
    return Record([a + b, os.getpid(), running.worker])


@worker(executor="process", name="a name of its own")
class Plain:
    def process(self, job: Job) -> Record:
        return Record(os.getpid())


def _look(job: Job) -> Record:
    setting.set("set by a job")
    return Record(
        {
            "pid": os.getpid(),
            "current": current_job() is job,
            "cancelled": job.cancelled(),
            "args": job.args,
            "meta": job.meta,
            "tags": job.tags,
            "state": job.state,
            "attempt": [job.attempt, job.max_attempts],
            "errors": len(job.errors),
            "attempted_by": job.attempted_by,
            "times": [isinstance(job.inserted_at, datetime), job.completed_at is None],
            "id": job.id,
        }
    )


def _die(job: Job) -> None:
    os._exit(job.args["code"])


def _signal(job: Job) -> None:
    # Without a core dump, as the process is meant to die.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), job.args["signal"])


def _segfault(job: Job) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def _wait(job: Job) -> None:
    """Write the id of the process, and run until it is killed."""
    Path(job.args["note"]).write_text(str(os.getpid()))
    time.sleep(600)


def _poll(job: Job) -> Cancel:
    note = Path(job.args["note"])
    note.write_text(str(os.getpid()))
    while not job.cancelled():
        time.sleep(0.01)
    note.write_text("told")
    time.sleep(job.args.get("linger", 0))
    return Cancel("saw it")


def _until(job: Job) -> None:
    """Run until the test creates a file."""
    note = Path(job.args["note"])
    note.write_text(str(os.getpid()))
    while not note.with_suffix(".go").exists():
        time.sleep(0.01)


def _family(job: Job) -> None:
    """Start a process that keeps the connection to the node open."""
    grandchild = os.fork()
    if grandchild == 0:
        time.sleep(600)
    Path(job.args["note"]).write_text(f"{os.getpid()} {grandchild}")
    if "code" in job.args:
        os._exit(job.args["code"])
    time.sleep(600)


def _signals(job: Job) -> Record:
    """Survive signals that are meant for the node, and start a process with default dispositions."""
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    program = "import signal; print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return Record(output.stdout.strip())


def _close_everything(job: Job) -> None:
    os.closerange(3, 100)
    time.sleep(600)


async def _later(job: Job) -> Record:
    return Record("awaited")


def _raise(job: Job) -> None:
    errors = {"exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "value": ValueError("bad\x00")}
    errors["group"] = ExceptionGroup("g", [KeyError("order")])
    raise errors[job.args["error"]]


def _touch(job: Job) -> None:
    Path(job.args["path"]).touch()


ACTIONS: dict[str, Any] = {
    "touch": _touch,
    "look": _look,
    "die": _die,
    "signal": _signal,
    "segfault": _segfault,
    "wait": _wait,
    "poll": _poll,
    "family": _family,
    "until": _until,
    "signals": _signals,
    "close": _close_everything,
    "later": _later,
    "raise": _raise,
    "pid": lambda job: Record([os.getpid(), setting.get()]),
    "cancel": lambda job: Cancel("no such account"),
    "snooze": lambda job: Snooze(3600),
    "no more": lambda job: (_ for _ in ()).throw(Unmakeable("no more")),
    "nothing": lambda job: object(),
    "unserialisable": lambda job: Record({1, 2}),
    "large": lambda job: Record(["x" * 1000] * 2000),
    "print": lambda job: print(job.args["text"]),
    "stop itself": lambda job: os.kill(os.getpid(), signal.SIGSTOP),
    "timeout error": lambda job: (_ for _ in ()).throw(TimeoutError("its own")),
}
