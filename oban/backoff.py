"""Retry delays of jobs, and of what fails in the library: functions of the number of tries."""

import random

#: Attempts beyond this count as this many, so that a delay stays within about twelve days.
MAX_EXPONENT = 20
#: Longest pause before what needs the database is tried again, in seconds: so long a node may stand still
#: when that is back.
LONGEST_PAUSE = 3.0


def exponential(attempt: int, max_attempts: int = 20) -> float:
    """Seconds to wait after failed attempt number `attempt`, without jitter: 15 + 2^attempt.

    The curve is Oban's: where `max_attempts` is more than 20, the attempt is scaled down so that
    the whole range of attempts spreads over the same twenty steps.
    """
    if max_attempts > MAX_EXPONENT:
        attempt = round(attempt / max_attempts * MAX_EXPONENT)
    return 15.0 + 2.0 ** max(0, min(attempt, MAX_EXPONENT))


def jittered(seconds: float, share: float = 0.1) -> float:
    """`seconds` and up to `share` of them more, so that jobs that failed together return apart."""
    return seconds * (1 + random.random() * share)  # noqa: S311 - spreads load, guards nothing


def default(attempt: int, max_attempts: int = 20) -> float:
    """The delay that a worker without a `backoff` of its own gets, in seconds."""
    return jittered(exponential(attempt, max_attempts))


def pause(failures: int, longest: float = LONGEST_PAUSE) -> float:
    """Seconds to wait after that many failures in a row: 0.2, doubled by each, up to half of it jitter."""
    return random.uniform(0.5, 1) * min(0.1 * 2.0 ** min(failures, MAX_EXPONENT), longest)  # noqa: S311
