"""Each line that is marked is an error for every checker, and no other line is."""

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from oban import Record, job


@job(queue="mailers")
async def send_email(to: str, subject: str = "Hi", *, urgent: bool = False) -> str:
    return f"{to}: {subject} {urgent}"


@job(executor="process")
def add(*numbers: int, scale: int = 1) -> Record:
    return Record(sum(numbers) * scale)


@job(quue="mailers")  # error
def misspelt() -> None:
    return None


@job(timeout="5")  # error
def wrong() -> None:
    return None


@job
def plain(to: str) -> int:
    return len(to)


async def use(session: AsyncSession, wrong: Session) -> None:
    await plain.enqueue("a@b.c", session=wrong)  # error
    plain.enqueue_sync("a@b.c", session=session)  # error
    plain.new("a@b.c", session=session)  # error
    await plain.enqueue(1)  # error
    await send_email.enqueue("a@b.c", subject=1)  # error
    await send_email.enqueue()  # error
    await send_email.enqueue(1)  # error
    await send_email.enqueue("a@b.c", "Hi", True)  # error
    await send_email.enqueue("a@b.c", sbject="Hi")  # error
    send_email.new("a@b.c", urgent="yes")  # error
    send_email.new(subject="Hi")  # error
    await send_email(1)  # error
    add.new("1")  # error
    add.enqueue_sync("1")  # error
    add.new(1, scale="2")  # error
    add("1")  # error
    await add.enqueue(1, factor=2)  # error
    later = send_email.with_options(queue="slow")
    await later.enqueue("a@b.c", subject=1)  # error
    send_email.with_options(quue="slow")  # error
    send_email.with_options(priority="1")  # error
    send_email.with_options(args={})  # error
    send_email.with_options(worker="other")  # error
    (await send_email("a@b.c")).no_such()  # error
