"""The pauses between two looks at what is waited for."""

from datetime import timedelta
from itertools import accumulate
from typing import Any

import pytest

from oban import clock
from oban.errors import InvalidArgument
from oban.polling import Polling


class Stopped(clock.Clock):
    """A monotonic clock that the test moves."""

    time = 1000.0

    def monotonic(self) -> float:
        return self.time


def test_pauses_double_up_to_half_a_second() -> None:
    polling = Polling(None, "nothing happened")
    pauses = [polling.pause() for _ in range(9)]
    assert pauses == [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("timeout", [1, 1.0, timedelta(seconds=1)])
def test_the_last_pause_ends_with_the_timeout(timeout: Any) -> None:
    stopped = Stopped()
    with clock.use(stopped):
        polling = Polling(timeout, "nothing happened")
        pauses = []
        while stopped.time < 1001:
            pauses.append(polling.pause())
            stopped.time += pauses[-1]
        with pytest.raises(TimeoutError, match="nothing happened after 1 seconds"):
            polling.pause()
    assert [round(passed, 6) for passed in accumulate(pauses)] == [0.01, 0.03, 0.07, 0.15, 0.31, 0.63, 1]


def test_a_timeout_of_0_leaves_no_time_for_a_pause() -> None:
    with pytest.raises(TimeoutError, match="nothing happened after 0 seconds"):
        Polling(0, "nothing happened").pause()


@pytest.mark.parametrize("timeout", [-1, float("nan"), float("inf"), "5", True, timedelta(seconds=-1)])
def test_a_wrong_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidArgument, match="timeout must "):
        Polling(timeout, "nothing happened")
