"""Sync code runs in greenlets that are used again, and knows nothing of those before it."""

import asyncio
import contextvars
import gc
import sys
import threading
import traceback
import weakref
from functools import partial
from typing import Any

import pytest
from greenlet import getcurrent, greenlet
from sqlalchemy.util import await_only

from oban.database.fast.greenlets import IDLE_GREENLETS, run_sync
from tests.support.internals import idle_greenlets

colour: contextvars.ContextVar[Any] = contextvars.ContextVar("colour", default="none")


class Value:
    """Something that a weak reference can be made to."""


class Broken(Exception):
    """The same."""


async def given(value: Any) -> Any:
    await asyncio.sleep(0)
    return value


async def test_what_sync_code_awaits_is_awaited_and_its_result_comes_back() -> None:
    assert await run_sync(lambda: [await_only(given(1)), await_only(given(2))]) == [1, 2]


async def test_the_same_greenlet_serves_one_call_after_the_other() -> None:
    first = await run_sync(getcurrent)
    assert first is await run_sync(lambda: await_only(given(getcurrent())))
    assert getcurrent() is not first


async def test_calls_at_one_time_have_a_greenlet_each_and_only_so_many_are_idle_greenlets() -> None:
    everybody = asyncio.Barrier(2 * IDLE_GREENLETS)

    def call(number: int) -> tuple[int, int]:
        await_only(everybody.wait())
        return number, id(getcurrent())

    found = await asyncio.gather(*(run_sync(partial(call, number)) for number in range(2 * IDLE_GREENLETS)))
    assert [number for number, _ in found] == list(range(2 * IDLE_GREENLETS))
    assert len({who for _, who in found}) == 2 * IDLE_GREENLETS
    assert len(idle_greenlets()) == IDLE_GREENLETS


async def test_context_variables_are_those_of_the_task() -> None:
    def paint() -> Any:
        before = colour.get()
        await_only(given(None))
        colour.set("blue")
        return before

    async def task(own: str) -> tuple[Any, Any]:
        colour.set(own)
        return await run_sync(paint), colour.get()

    painted = await asyncio.gather(task("red"), task("green"))
    assert [*painted] == [("red", "blue"), ("green", "blue")]
    assert colour.get() == "none"


async def test_nothing_of_a_call_is_kept_after_it() -> None:
    async def calls() -> list[Any]:
        held, result = Value(), Value()
        assert await run_sync(lambda: (held, result)[1]) is result
        with pytest.raises(Broken) as caught:
            await run_sync(lambda: fail(held))
        return [weakref.ref(each) for each in (held, result, caught.value)]

    def fail(value: Value) -> None:
        raise Broken(value)

    references = await calls()
    # `caught` holds on to itself.
    gc.collect()
    assert [reference() for reference in references] == [None, None, None]
    assert {runner.gr_context for runner in idle_greenlets()} == {None}


async def test_an_error_comes_out_as_it_was_raised_and_the_next_call_works() -> None:
    error = KeyError("lost")

    def careless() -> None:
        await_only(given(None))
        raise error

    with pytest.raises(KeyError) as caught:
        await run_sync(careless)
    assert caught.value is error
    assert error.__context__ is None
    assert "careless" in "".join(traceback.format_exception(error))
    assert await run_sync(lambda: await_only(given(3))) == 3


async def test_an_error_shows_where_it_came_from_through_both_sides() -> None:
    async def driver() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    def careless() -> None:
        await_only(driver())

    with pytest.raises(LookupError) as caught:
        await run_sync(careless)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[-1] == "driver"
    assert "careless" in names


def test_a_call_may_go_on_in_another_greenlet_than_it_began_in() -> None:
    call = run_sync(lambda: [await_only(given(1)), await_only(given(2))])
    # As an eager task does that is made in sync code.
    began = greenlet(lambda: call.send(None))
    assert began.switch() is None
    assert began.dead
    call.send(None)
    with pytest.raises(StopIteration) as ended:
        call.send(None)
    assert ended.value.value == [1, 2]


async def test_a_call_that_began_too_deep_in_a_recursion_does_not_spoil_the_next_ones() -> None:
    def recurse(times: int) -> int:
        return 1 + recurse(times - 1) if times else 0

    def deep(times: int) -> None:
        if times:
            deep(times - 1)
        else:
            run_sync(partial(recurse, 300)).send(None)

    idle_greenlets().clear()
    with pytest.raises(RecursionError):
        deep(sys.getrecursionlimit() - len(traceback.extract_stack()) - 150)
    assert await run_sync(partial(recurse, 300)) == 300


async def test_an_error_of_what_is_awaited_is_raised_in_the_sync_code_which_may_go_on() -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    def careful() -> str:
        try:
            await_only(broken())
        except LookupError as error:
            return f"{error}, {await_only(given('mended'))}"
        return "not reached"

    assert await run_sync(careful) == "gone, mended"


async def test_a_cancelled_call_cleans_up_and_its_greenlet_serves_others() -> None:
    began, seen = asyncio.Event(), []

    def patient() -> None:
        began.set()
        try:
            await_only(asyncio.Event().wait())
        except asyncio.CancelledError:
            seen.append(await_only(given("cleaned up")))
            raise

    task = asyncio.create_task(run_sync(patient))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cleaned up"]
    assert await run_sync(lambda: await_only(given(4))) == 4


async def test_a_call_that_nobody_awaits_any_more_ends() -> None:
    ended = []

    def endless() -> None:
        try:
            await_only(asyncio.Event().wait())
        finally:
            ended.append(True)

    call = run_sync(endless)
    call.send(None)
    call.close()
    assert ended == [True]


def test_the_greenlets_of_a_thread_end_with_it() -> None:
    references: list[Any] = []

    def thread() -> None:
        async def main() -> None:
            references.append(weakref.ref(await run_sync(getcurrent)))

        asyncio.run(main())
        assert references[0]() in idle_greenlets()

    before = threading.Thread(target=thread)
    before.start()
    before.join()
    gc.collect()
    assert references[0]() is None
