"""Delays before a failed job, or a failed call of the library, is repeated."""

import random

#: The largest exponent, so that a delay is at most about 12 days.
MAX_EXPONENT = 20
#: The longest pause between calls to an unavailable database, in seconds: a node can take that long to
#: notice that the database is back.
LONGEST_PAUSE = 3.0


def exponential(attempt: int, max_attempts: int = 20) -> float:
    """The delay after failed attempt number `attempt`, in seconds and without jitter: 15 + 2^attempt.

    As in Oban for Elixir, if `max_attempts` is more than 20, all attempts are spread over the same 20 steps.
    """
    if max_attempts > MAX_EXPONENT:
        attempt = round(attempt / max_attempts * MAX_EXPONENT)
    return 15.0 + 2.0 ** max(0, min(attempt, MAX_EXPONENT))


def jittered(seconds: float, share: float = 0.1) -> float:
    """Lengthen a delay by a random share, so that jobs that failed together do not run again together."""
    return seconds * (1 + random.random() * share)  # noqa: S311 - not for security


def default(attempt: int, max_attempts: int = 20) -> float:
    """The delay, in seconds, for a worker that does not define `backoff`."""
    return jittered(exponential(attempt, max_attempts))


def pause(failures: int, longest: float = LONGEST_PAUSE) -> float:
    """Seconds to wait after a number of failures in a row: 0.2, then doubling, half of it random."""
    return random.uniform(0.5, 1) * min(0.1 * 2.0 ** min(failures, MAX_EXPONENT), longest)  # noqa: S311
