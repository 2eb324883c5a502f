"""Functions made into jobs keep their parameters and results."""

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, assert_type

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from oban import Job, Record, job


@job(
    queue="mailers",
    tags=["mail"],
    timeout=5,
    name="typing.mail",
    oban="Other",
    max_attempts=3,
    meta={},
    priority=1,
)
async def send_email(to: str, /, subject: str = "Hi", *, urgent: bool = False) -> str:
    return f"{to}: {subject} {urgent}"


@job(executor="process")
def add(*numbers: int, **names: str) -> Record:
    return Record([sum(numbers), names])


@job()
def nothing() -> None:
    return None


@job
def plain(to: str) -> int:
    return len(to)


async def use(session: AsyncSession, connection: AsyncConnection) -> None:
    assert_type(await plain.enqueue("a@b.c"), Job)
    assert_type(plain("a"), int)
    assert_type(send_email.new("a@b.c"), Job)
    assert_type(send_email.new("a@b.c", subject="Hi", urgent=True), Job)
    assert_type(await send_email.enqueue("a@b.c", "Hi"), Job)
    coroutine: Coroutine[Any, Any, str] = send_email("a@b.c")
    assert_type(await coroutine, str)
    assert_type(await send_email("a@b.c", urgent=True), str)
    assert_type(add(1, 2, x="y"), Record)
    await add.enqueue(1, 2, x="y")
    await nothing.enqueue()
    assert_type(await send_email.enqueue("a@b.c", urgent=True, session=session), Job)
    assert_type(await add.enqueue(1, session=connection), Job)
    assert_type(await plain.enqueue("a@b.c", session=None), Job)
    later = send_email.with_options(schedule_in=timedelta(minutes=1), queue="slow", priority=9)
    assert_type(await later.enqueue("a@b.c", subject="Hi"), Job)
    assert_type(await later("a@b.c"), str)
    assert_type(add.worker.worker_name, str)


def use_in_sync_code(session: Session) -> None:
    assert_type(send_email.enqueue_sync("a@b.c", session=session), Job)
    assert_type(send_email.enqueue_sync("a@b.c", subject="Hi"), Job)
