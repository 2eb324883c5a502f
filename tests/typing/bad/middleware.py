"""Each line that is marked is an error for every checker, and no other line is."""

from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Any

from oban import CallNext, Job, Oban, Resource, Worker, injected, job


class Client:
    pass


async def timing(job: Job, call_next: CallNext) -> Any:
    return await call_next(job)


async def only_job(job: Job) -> Any:
    return None


async def not_decorated(oban: Oban) -> AsyncIterator[None]:
    yield


@contextmanager
def not_async(oban: Oban) -> Any:
    yield


class NoList(Worker, middleware=timing):  # error
    pass


class OneArgument(Worker, middleware=[only_job]):  # error
    pass


@job(queue="typing")
async def fetch(url: str, http: Resource[Client] = injected) -> None:
    return None


async def use() -> None:
    Oban("sqlite://", middleware=timing)  # error
    Oban("sqlite://", middleware=[only_job])  # error
    Oban("sqlite://", lifespan=not_decorated)  # error
    Oban("sqlite://", lifespan=not_async)  # error
    Oban("sqlite://", lifespan=Client())  # error
    await fetch.enqueue(1)  # error
    await fetch("https://example.com/", http=1)  # error
