"""Options of `Oban` that many tests share."""

from typing import Any

#: A short grace period, so a test that fails while its jobs run does not wait for them.
BRIEF: dict[str, Any] = {"shutdown_grace_period": 0.5}
#: Intervals longer than any test, so nothing that happens in a test was found by polling.
NO_POLLING: dict[str, Any] = {
    "poll_interval": 300.0,
    "stage_interval": 300.0,
    "watch_interval": 300.0,
    **BRIEF,
}
#: Intervals so short that tests need not wait for what is found by polling.
FAST_POLLING: dict[str, Any] = {
    "poll_interval": 0.05,
    "stage_interval": 0.05,
    "watch_interval": 0.05,
    **BRIEF,
}
