"""What the keys of `oban top` change."""

from collections.abc import Awaitable, Callable

from oban.client import Oban
from oban.config import MAX_LIMIT
from oban.error_texts import log_safe

#: By key: the verb, and what a job is afterwards.
VERBS = {"c": ("Cancel", "cancelled"), "r": ("Retry", "retried"), "d": ("Delete", "deleted")}


async def change_job(oban: Oban, key: str, job_id: int) -> tuple[bool, str]:
    """Cancel, retry or delete a job. Returns whether that changed it, and a sentence that says so."""
    calls: dict[str, Callable[[int], Awaitable[bool]]] = {
        "c": oban.cancel_job,
        "r": oban.retry_job,
        "d": oban.delete_job,
    }
    changed = await calls[key](job_id)
    _, done = VERBS[key]
    if changed:
        return True, f"Job {job_id} was {done}."
    job = await oban.get_job(job_id)
    if job is None:
        return False, f"Job {job_id} is not there any more."
    return False, f"Job {job_id} was not {done}, because it is {job.state.value}."


async def pause(oban: Oban, queue: str) -> str:
    await oban.pause_queue(queue)
    return f"The queue {log_safe(queue)} is paused."


async def resume(oban: Oban, queue: str) -> str:
    await oban.resume_queue(queue)
    return f"The queue {log_safe(queue)} is running."


async def scale(oban: Oban, queue: str, limit: int) -> str:
    limit = max(1, min(MAX_LIMIT, limit))
    await oban.scale_queue(queue, limit)
    return f"Each node runs up to {limit} jobs of the queue {log_safe(queue)} at once."
