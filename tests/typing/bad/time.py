"""Mistakes with the helpers that move the clock and run jobs are errors."""

from datetime import date

from sqlalchemy.orm import Session

from oban import Job, Oban, SyncOban
from oban.testing import drain_queue, insert_periodic_jobs, mode, process_job, travel


async def mistakes(oban: Oban, sync: SyncOban, session: Session, job: Job) -> None:
    travel(date(2030, 1, 1))  # error
    travel("2030-01-01")  # error
    travel(days="1")  # error
    with mode("eager"):  # error
        await drain_queue(with_limit="1")  # error
    await drain_queue(oban=sync)  # error
    await insert_periodic_jobs(oban=oban, session=session)  # error
    await insert_periodic_jobs(oban=sync)  # error
    await process_job(Job)  # error
