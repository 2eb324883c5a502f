"""F20: at no time do two nodes believe that they lead, however often leaders freeze or elections fail."""

import asyncio
import random
from functools import partial
from typing import Any

import pytest
from sqlalchemy import URL

from oban import Oban, clock
from oban.config import Options
from oban.runner.services.leader import Leader
from tests.support.internals import database_of
from tests.support.waiting import eventually

LEASE = 0.15
#: How often leaders freeze, and how often their elections fail.
FAULTS = 8


class Watch:
    """Samples every 10 ms which nodes believe that they lead, and for how long nobody did."""

    def __init__(self, leaders: list[Leader]) -> None:
        self.leaders = leaders
        self.samples = 0
        self.split: list[list[int]] = []
        self.longest_vacancy = 0.0

    async def sample(self) -> None:
        led_at = clock.monotonic()
        while True:
            leading = [number for number, one in enumerate(self.leaders) if one.leads]
            now = clock.monotonic()
            if leading:
                led_at = now
            self.longest_vacancy = max(self.longest_vacancy, now - led_at)
            if len(leading) > 1:
                self.split.append(leading)
            self.samples += 1
            await asyncio.sleep(0.01)

    def leader(self) -> Leader | None:
        return next((one for one in self.leaders if one.leads), None)

    def is_led_by_another_than(self, one: Leader) -> bool:
        return self.leader() not in (None, one)


@pytest.mark.slow
async def test_frozen_leaders_and_failed_elections_leave_one_leader(
    emptied_postgresql: URL, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Oban(emptied_postgresql.set(drivername="postgresql+asyncpg")) as oban:
        options = Options(node="same", lease=LEASE)
        leaders = [Leader(database_of(oban), options) for _ in range(3)]
        for one in leaders:
            await one.start()
        watch = Watch(leaders)
        sampling = asyncio.create_task(watch.sample())
        failing: set[Leader] = set()

        def with_faults(one: Leader) -> Any:
            tick = one.tick

            async def fallible() -> float | None:
                if one in failing:
                    raise ConnectionError("no route")
                return await tick()

            return fallible

        for one in leaders:
            monkeypatch.setattr(one, "tick", with_faults(one))
        terms = 0
        for fault in range(2 * FAULTS):
            leader: Leader = await eventually(watch.leader)
            terms += 1
            if fault % 2:
                # As a process that is stopped: it neither renews its lease nor learns that it has ended.
                await leader.stop()
                await asyncio.sleep(LEASE * rng.uniform(1, 3))
                await leader.start()
            else:
                failing.add(leader)
                await eventually(partial(watch.is_led_by_another_than, leader))
                failing.clear()
        sampling.cancel()
        for one in leaders:
            await one.stop()
        print(
            f"{terms} terms, {watch.samples} samples, at most {watch.longest_vacancy:.2f} s without a leader"
        )
        assert watch.split == []
        assert watch.samples > 3 * terms
        assert watch.longest_vacancy <= LEASE + 2
