"""Options of `Oban` that many tests share."""

from typing import Any

#: A test that fails while its jobs run should not wait long for them.
BRIEF: dict[str, Any] = {"shutdown_grace_period": 0.5}
#: Intervals so long that whatever happens within a test was not found by looking again.
NO_POLLING: dict[str, Any] = {"poll_interval": 30.0, "stage_interval": 30.0, "watch_interval": 30.0, **BRIEF}
#: Intervals so short that a test need not wait for what is found by looking again.
FAST_POLLING: dict[str, Any] = {
    "poll_interval": 0.05,
    "stage_interval": 0.05,
    "watch_interval": 0.05,
    **BRIEF,
}
