"""A chain of middleware runs in order, and one that loses the job or its outcome is an error."""

import asyncio
import functools
import re
import threading
from collections.abc import Callable
from typing import Any

import pytest

from oban import CallNext, Cancel, Job, Middleware, Oban, Record, Snooze, SyncOban, Worker
from oban.errors import ConfigError
from oban.middleware import around_in_thread, around_on_loop, layers

JOB = Job(worker="some.Worker")


def on_loop(middleware: list[Middleware], result: object = None) -> Any:
    """Run middleware around an async call; returns what comes out."""

    async def call(job: Job) -> Any:
        await asyncio.sleep(0)
        if isinstance(result, (KeyError, ValueError)):
            raise result
        return result

    async def run() -> Any:
        return await around_on_loop(layers(middleware), call)(JOB)

    return asyncio.run(run())


def in_thread(middleware: list[Middleware], result: object = None) -> Any:
    """Run middleware around a plain call; returns what comes out."""

    def call(job: Job) -> Any:
        if isinstance(result, (KeyError, ValueError)):
            raise result
        return result

    return around_in_thread(layers(middleware), call)(JOB)


def noting(events: list[str], name: str, *, is_async: bool) -> Middleware:
    async def on_loop(job: Job, call_next: CallNext) -> Any:
        events.append(f"{name} in")
        result = await call_next(job)
        events.append(f"{name} out")
        return [name, result]

    def plain(job: Job, call_next: CallNext) -> Any:
        events.append(f"{name} in")
        result = call_next(job)
        events.append(f"{name} out")
        return [name, result]

    return on_loop if is_async else plain


@pytest.mark.parametrize("kinds", [(True, True), (False, False), (True, False), (False, True)])
def test_the_first_is_the_outermost_whatever_their_kinds(kinds: tuple[bool, bool]) -> None:
    events: list[str] = []
    chain = [noting(events, name, is_async=kind) for name, kind in zip("ab", kinds, strict=True)]
    assert on_loop(chain, "done") == ["a", ["b", "done"]]
    assert events == ["a in", "b in", "b out", "a out"]


def test_a_chain_in_a_thread_runs_in_order() -> None:
    events: list[str] = []
    chain = [noting(events, name, is_async=False) for name in "abc"]
    assert in_thread(chain, "done") == ["a", ["b", ["c", "done"]]]
    assert events == ["a in", "b in", "c in", "c out", "b out", "a out"]


async def cancels(job: Job, call_next: CallNext) -> Any:
    return Cancel("without running it")


def cancels_plainly(job: Job, call_next: CallNext) -> Any:
    return Cancel("without running it")


async def turns_errors_into_results(job: Job, call_next: CallNext) -> Any:
    try:
        return await call_next(job)
    except KeyError:
        return None


def turns_errors_into_results_plainly(job: Job, call_next: CallNext) -> Any:
    try:
        return call_next(job)
    except KeyError:
        return None


@pytest.mark.parametrize("run", [on_loop, in_thread])
def test_an_outcome_can_be_decided_without_running_the_job(run: Callable[..., Any]) -> None:
    assert run([cancels_plainly], "not run") == Cancel("without running it")
    assert on_loop([cancels], "not run") == Cancel("without running it")


@pytest.mark.parametrize("run", [on_loop, in_thread])
def test_an_error_passes_through_and_can_be_handled(run: Callable[..., Any]) -> None:
    events: list[str] = []
    with pytest.raises(ValueError, match="broken"):
        run([noting(events, "a", is_async=False)], ValueError("broken"))
    assert events == ["a in"]
    assert run([turns_errors_into_results_plainly], KeyError("a")) is None
    assert on_loop([turns_errors_into_results], KeyError("a")) is None


async def skips(job: Job, call_next: CallNext) -> Any:
    return None


async def forgets_to_await(job: Job, call_next: CallNext) -> Any:
    return call_next(job)


async def forgets_to_await_and_return(job: Job, call_next: CallNext) -> Any:
    call_next(job)  # type: ignore[unused-coroutine, unused-ignore]


async def does_not_wait(job: Job, call_next: CallNext) -> Any:
    task = asyncio.create_task(call_next(job))
    await asyncio.sleep(0)
    return task.done()


async def calls_twice(job: Job, call_next: CallNext) -> Any:
    await call_next(job)
    return await call_next(job)


async def forgets_to_return(job: Job, call_next: CallNext) -> Any:
    await call_next(job)


def skips_plainly(job: Job, call_next: CallNext) -> Any:
    return None


def calls_twice_plainly(job: Job, call_next: CallNext) -> Any:
    call_next(job)
    return call_next(job)


def forgets_to_return_plainly(job: Job, call_next: CallNext) -> Any:
    call_next(job)


def returns_an_awaitable(job: Job, call_next: CallNext) -> Any:
    return turns_errors_into_results(job, call_next)


def returns_another_awaitable(job: Job, call_next: CallNext) -> Any:
    call_next(job)
    return skips(job, call_next)


def calls_next_in_another_thread(job: Job, call_next: CallNext) -> Any:
    errors = []

    def call() -> None:
        try:
            call_next(job)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    raise errors[0]


def yields(job: Job, call_next: CallNext) -> Any:
    yield call_next(job)


@functools.wraps(yields)
def hides_a_generator(job: Job, call_next: CallNext) -> Any:
    return yields(job, call_next)


LOSERS: list[tuple[Callable[..., Any], Any, str]] = [
    (on_loop, skips, "returned None without running the job"),
    (on_loop, skips_plainly, "returned None without running the job"),
    (in_thread, skips_plainly, "returned None without running the job"),
    (on_loop, forgets_to_await, "returned an object of the type coroutine without running the job"),
    (on_loop, does_not_wait, "returned an object of the type bool while call_next was still running"),
    (on_loop, calls_twice, "can call call_next once"),
    (on_loop, calls_twice_plainly, "can call call_next once"),
    (in_thread, calls_twice_plainly, "can call call_next once"),
    (on_loop, forgets_to_return, r"returned None instead of what call_next returned, Snooze\(…\)"),
    (on_loop, forgets_to_return_plainly, "returned None instead of what call_next returned"),
    (in_thread, forgets_to_return_plainly, "returned None instead of what call_next returned"),
    (on_loop, returns_an_awaitable, "returned an object of the type coroutine without running the job"),
    (in_thread, returns_an_awaitable, "returned an object of the type coroutine without running the job"),
    (on_loop, returns_another_awaitable, "returned an object of the type coroutine which nobody awaits"),
    (in_thread, returns_another_awaitable, "returned an object of the type coroutine which nobody awaits"),
    (on_loop, calls_next_in_another_thread, "must call call_next in its own thread"),
    (on_loop, hides_a_generator, "returned an object of the type generator without running the job"),
]


@pytest.mark.parametrize(("run", "middleware", "problem"), LOSERS)
def test_a_middleware_that_loses_the_job_or_its_outcome_is_an_error(
    run: Callable[..., Any], middleware: Any, problem: str
) -> None:
    name = re.escape(f"middleware {__name__}.{middleware.__qualname__}")
    with pytest.raises(RuntimeError, match=f"{name} {problem}"):
        run([middleware], Snooze(5))


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_call_that_is_not_awaited_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="returned None without running the job"):
        on_loop([forgets_to_await_and_return])


def test_a_result_that_is_no_outcome_can_be_dropped() -> None:
    assert on_loop([forgets_to_return], "anything") is None


def test_a_job_cannot_be_started_after_its_middleware_has_returned() -> None:
    kept: list[CallNext] = []

    def keeps(job: Job, call_next: CallNext) -> Any:
        kept.append(call_next)
        return Cancel("not now")

    assert in_thread([keeps], "not run") == Cancel("not now")
    with pytest.raises(RuntimeError, match="can call call_next once, before it returns"):
        kept[0](JOB)


class Counting:
    """A middleware that is an object."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, job: Job, call_next: CallNext) -> Any:
        self.count += 1
        return await call_next(job)


class Yielding:
    async def __call__(self, job: Job, call_next: CallNext) -> Any:
        yield await call_next(job)


async def labelled(label: str, job: Job, call_next: CallNext) -> Any:
    return [label, await call_next(job)]


def test_objects_partials_and_methods_can_be_middleware() -> None:
    counting = Counting()
    chain: list[Middleware] = [counting, functools.partial(labelled, "x"), counting.__call__]
    assert on_loop(chain, "done") == ["x", "done"]
    assert counting.count == 2
    Oban("sqlite+aiosqlite://", middleware=chain)


async def only_job(job: Job) -> None:
    return None


async def yields_on_loop(job: Job, call_next: CallNext) -> Any:
    yield await call_next(job)


BAD: list[tuple[Any, str]] = [
    (cancels, "middleware must be a list of functions, not function"),
    ("app.timing", "middleware must be a list of functions, not str"),
    (["app.timing"], "middleware must be functions; 'app.timing' cannot be called"),
    ([object()], "cannot be called"),
    ([Counting], r"middleware tests\.unit\.test_middleware\.Counting is a class: pass an instance"),
    ([Yielding()], r"Yielding is a generator: call call_next\(job\) and return the result"),
    ([yields], "is a generator"),
    ([yields_on_loop], "is a generator"),
    ([only_job], r"only_job must take two arguments: job and call_next"),
]


@pytest.mark.parametrize(("value", "problem"), BAD)
def test_what_cannot_be_middleware_is_refused_by_instances_and_workers(value: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Oban("sqlite+aiosqlite://", middleware=value)
    with pytest.raises(ConfigError, match=f"Around: .*{problem}"):

        class Around(Worker, middleware=value):
            async def process(self, job: Job) -> None: ...


def test_a_worker_inherits_middleware_and_can_replace_it() -> None:
    class Base(Worker, middleware=[cancels]):
        async def process(self, job: Job) -> Record:
            return Record(None)

    class Same(Base):
        pass

    class Without(Base, middleware=[]):
        pass

    assert [layer.function for layer in Same.own_middleware] == [cancels]
    assert Without.own_middleware == ()


def test_a_client_that_runs_no_jobs_takes_no_middleware() -> None:
    with pytest.raises(ConfigError, match="SyncOban runs no jobs: leave out middleware"):
        SyncOban("sqlite://", middleware=[cancels])
