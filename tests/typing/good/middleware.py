"""Middleware, and what a lifespan yields."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, assert_type

from oban import CallNext, Job, Middleware, Oban, Resource, Worker, injected, job


class Client:
    async def get(self, url: str) -> str:
        return url


async def timing(job: Job, call_next: CallNext) -> Any:
    return await call_next(job)


def in_thread(job: Job, call_next: CallNext) -> Any:
    return call_next(job)


class Counting:
    async def __call__(self, job: Job, call_next: CallNext) -> Any:
        return await call_next(job)


@asynccontextmanager
async def lifespan(oban: Oban) -> AsyncGenerator[dict[str, Any], None]:
    yield {"http": Client()}


@asynccontextmanager
async def one_object(oban: Oban) -> AsyncGenerator[Client, None]:
    yield Client()


chain: list[Middleware] = [timing, in_thread, Counting()]


class Fetch(Worker, queue="typing", middleware=[timing, in_thread]):
    async def process(self, job: Job, http: Client) -> None:
        assert_type(await http.get(job.args["url"]), str)


@job(queue="typing", middleware=(Counting(),))
async def fetch(url: str, http: Resource[Client] = injected) -> None:
    assert_type(await http.get(url), str)


async def use() -> None:
    async with Oban("sqlite+aiosqlite://", middleware=chain, lifespan=lifespan):
        await fetch.enqueue("https://example.com/")
        await fetch("https://example.com/", http=Client())
    Oban("sqlite+aiosqlite://", lifespan=one_object, middleware=(timing,))
