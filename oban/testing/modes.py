"""Whether jobs run as soon as they are enqueued: the modes "inline" and "manual"."""

from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from oban import display, insert_hook
from oban.client import Oban
from oban.errors import ConfigError
from oban.models import Job
from oban.repository import drain as repository
from oban.sync_client import SyncOban
from oban.testing import runs
from oban.testing.runs import Attempt, JobRunner
from oban.testing.turns import turn

ModeName: TypeAlias = Literal["inline", "manual"]


@dataclass(frozen=True)
class _Mode:
    inline: bool
    safe: bool


_current: ContextVar[_Mode | None] = ContextVar("oban.testing.mode", default=None)
#: The mode of contexts without one.
_everywhere = _Mode(inline=False, safe=True)


@contextmanager
def mode(mode: ModeName, *, with_safety: bool = True) -> Iterator[None]:
    """Choose what happens to jobs that this context enqueues while the block runs.

    With "inline", `enqueue`, `enqueue_many`, `enqueue_stream` and `enqueue_sync` run each job at once, as a
    node would, due or not, in the caller's transaction if they get a `session`. The instance then shows how
    that ended, which is stored as well. A job that fails or snoozes does not run again, and jobs that it
    enqueues run within it. Duplicates of unique jobs, and jobs that are inserted without these calls, such as
    by `session.add`, do not run.

    With "manual", jobs are only inserted, as they are without a mode: for a part of a test in inline mode.

    The mode is that of this context: of the task or thread, and of tasks that it starts.

    Args:
        mode: "inline" or "manual".
        with_safety: Whether an exception of a job is only stored as its outcome (default True). Otherwise
            `enqueue` also raises it, after it was stored.

    Raises:
        ConfigError: The mode does not exist.

    Example:
        ::

            with testing.mode("inline"):
                job = await Confirm.enqueue({"order": 7})
            assert job.state == "completed"
    """
    token = _current.set(_make(mode, with_safety))
    try:
        yield
    finally:
        _current.reset(token)


@contextmanager
def mode_everywhere(mode: ModeName, *, with_safety: bool = True) -> Iterator[None]:
    """Do the same for every context of the process that has no mode of its own."""
    global _everywhere
    before, _everywhere = _everywhere, _make(mode, with_safety)
    try:
        yield
    finally:
        _everywhere = before


def _make(mode: object, with_safety: bool) -> _Mode:
    if mode not in get_args(ModeName):
        raise ConfigError(f"the mode must be 'inline' or 'manual', not {display.shown(mode)}")
    insert_hook.hook = _HOOK
    return _Mode(inline=mode == "inline", safe=with_safety)


class _Hook:
    """Runs jobs that were just inserted, if the mode is "inline"."""

    def is_needed(self) -> bool:
        return _mode().inline

    async def around_async(
        self, client: Oban, insertion: Awaitable[None], session: Any, jobs: list[Job]
    ) -> None:
        if not _mode().inline:
            await insertion
            return
        async with turn(client._database):
            await insertion
            await self.after_async(client, session, jobs)

    async def after_async(self, client: Oban, session: Any, jobs: list[Job]) -> None:
        if (mode := _mode()).inline and (new := _new(jobs)):
            async with runs.on_loop(client, session) as runner:
                attempts = await _run(runner, new, mode)
            await runs.run_in(client._database, session, repository.show_jobs, jobs, _ids(jobs))
            _raise_first(attempts, mode)

    def after_sync(self, client: SyncOban, session: Any, jobs: list[Job]) -> None:
        if (mode := _mode()).inline and (new := _new(jobs)):
            attempts = runs.beside_thread(client, lambda runner: _run(runner, new, mode), session)
            client._database.run(session, repository.show_jobs, jobs, _ids(jobs))
            _raise_first(attempts, mode)


_HOOK = _Hook()


def _mode() -> _Mode:
    return _current.get() or _everywhere


def _new(jobs: list[Job]) -> list[Job]:
    return [job for job in jobs if not job.conflict]


def _ids(jobs: list[Job]) -> list[int]:
    return [job.id for job in jobs]


async def _run(runner: JobRunner, jobs: list[Job], mode: _Mode) -> list[Attempt]:
    """Run jobs one after another; without safety, until one raises."""
    attempts: list[Attempt] = []
    for job_id in _ids(jobs):
        attempt = await runner.run(job_id)
        if attempt is not None:
            attempts.append(attempt)
            if attempt.error_to_raise(mode.safe) is not None:
                break
    return attempts


def _raise_first(attempts: list[Attempt], mode: _Mode) -> None:
    if attempts and (error := attempts[-1].error_to_raise(mode.safe)) is not None:
        raise error
