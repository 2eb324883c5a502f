"""All scenarios, with their promises."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import URL

from benchmarks import drain, insert, memory, tracing, waiting
from benchmarks.meter import RATE, Meter

BOTH = ("postgresql", "sqlite")
PAIR = ("ours", "raw")
TRIO = (*PAIR, "raw-fused")


Measure = Callable[[URL, Meter, str], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run. `promise` is its lower bound, or upper bound if smaller values are better."""

    name: str
    promise: float | None = None
    higher_is_better: bool = True

    def meets(self, value: float) -> bool:
        """Whether a value meets the promise."""
        assert self.promise is not None
        return value >= self.promise if self.higher_is_better else value <= self.promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One task, done with the library and by hand.

    `measure` gets the database, a meter and one of `sides`, and stores the figures in the meter. If `waits`
    is true, the jobs are in the table beforehand, together with a `backlog` of that many finished jobs and
    that many jobs of another queue. Numbers are for a scale of 1. A promise bounds the ratio to our own
    figure in the scenario `against`, otherwise the ratio to "raw", otherwise the figure itself. A scenario
    that runs `once` runs only in the first round.
    """

    name: str
    jobs: int
    measure: Measure
    waits: bool = True
    backlog: int = 0
    sides: Sequence[str] = PAIR
    databases: Sequence[str] = ("postgresql",)
    metrics: Sequence[Metric] = (Metric(RATE),)
    against: str | None = None
    once: bool = False

    def sides_on(self, database: str) -> Sequence[str]:
        """Return the sides to measure; on SQLite, one hand-written loop is enough."""
        return self.sides if database == "postgresql" else self.sides[:2]


def _rate(promise: float | None = None) -> tuple[Metric]:
    return (Metric(RATE, promise),)


def _times(median: float, worst: float | None) -> tuple[Metric, Metric]:
    return Metric("p50 ms", median, False), Metric("p99 ms", worst, False)


def _drain(name: str, promise: float | None, limit: int = 50, **options: Any) -> Scenario:
    sides, how = options.pop("sides", PAIR), options.pop("how", {})
    measure = partial(options.pop("function", drain.drain), limit=limit, **how)
    options = {"jobs": 20_000, **options}
    return Scenario(name=f"drain-{name}", measure=measure, sides=sides, metrics=_rate(promise), **options)


def _insert(how: str, promise: float | None, jobs: int = 20_000, **options: Any) -> Scenario:
    return Scenario(
        name=f"insert-{how}",
        jobs=jobs,
        measure=partial(insert.insert, how=how),
        waits=False,
        metrics=_rate(promise),
        **options,
    )


def _unique(how: str, promise: float, *, conflict: bool = False) -> Scenario:
    """Insert unique jobs that are new, or that are all there."""
    against = "insert-one" if how == "one" else "insert-many"
    return Scenario(
        name=f"unique-conflict-{how}" if conflict else f"unique-{how}",
        jobs=2_000 if how == "one" else 20_000,
        measure=partial(insert.insert_unique, how=how, conflict=conflict),
        waits=False,
        sides=PAIR[:1],
        databases=BOTH,
        metrics=_rate(promise),
        against=against,
    )


def _trip(name: str, promise: float | None, **options: Any) -> Scenario:
    """Enqueue and run jobs, with what OpenTelemetry does about them."""
    setup = name.partition("-")[2] or None
    return Scenario(
        name=name,
        jobs=5_000,
        measure=partial(tracing.trip, setup=setup),
        waits=False,
        sides=PAIR[:1],
        metrics=(Metric(RATE, promise), Metric(tracing.ALL_CPU, None, False)),
        **options,
    )


def _memory(name: str, measure: Measure, jobs: int, **options: Any) -> Scenario:
    metric = Metric("peak MiB", 1.1 if "against" in options else None, False)
    return Scenario(
        name=f"memory-{name}",
        jobs=jobs,
        measure=measure,
        sides=PAIR[:1],
        metrics=[metric],
        once=True,
        **options,
    )


SCENARIOS = [
    _drain("10", 0.6, 10, sides=TRIO, databases=BOTH),
    _drain("50", 0.65, sides=TRIO, databases=BOTH),
    _drain("200", 0.7, 200, sides=TRIO, databases=BOTH),
    _drain("backlog", 0.9, backlog=500_000, against="drain-50"),
    _drain("snapshot", None, how={"snapshot": True}, against="drain-50"),
    _drain("two", 1.3, function=drain.drain_together, how={"processes": 2}, against="drain-50"),
    _drain("four", None, function=drain.drain_together, how={"processes": 4}, against="drain-50"),
    _drain("writing-10", 0.5, 10, how={"variant": "writing"}, jobs=2_000),
    _drain("writing-50", 0.5, how={"variant": "writing"}, jobs=2_000),
    _drain("threads-10", 0.35, 10, how={"variant": "threads"}, jobs=2_000),
    _drain("threads-50", 0.35, how={"variant": "threads"}, jobs=2_000),
    _drain("middleware", 0.9, how={"variant": "async"}, sides=PAIR[:1], against="drain-50"),
    _drain("middleware-plain", None, how={"variant": "plain"}, sides=PAIR[:1], against="drain-50"),
    _drain(
        "telemetry", 0.8, how={"variant": "telemetry"}, sides=PAIR[:1], databases=BOTH, against="drain-50"
    ),
    _drain("without-history", None, how={"variant": "without-history"}, sides=PAIR[:1], databases=BOTH),
    _drain("history", 0.95, sides=PAIR[:1], databases=BOTH, against="drain-without-history"),
    _insert("one", 0.6, 2_000, databases=BOTH),
    _insert("many", 0.5, databases=BOTH),
    _insert("session", 0.65, 5_000),
    _insert("add-all", 0.35),
    _unique("one", 0.3),
    _unique("one", 0.5, conflict=True),
    _unique("many", 0.2),
    _unique("many", 0.15, conflict=True),
    Scenario(name="latency", jobs=300, measure=waiting.latency, waits=False, metrics=_times(1.3, None)),
    Scenario(
        name="scheduled",
        jobs=200,
        measure=waiting.scheduled,
        waits=False,
        sides=("ours",),
        metrics=_times(10, 50),
    ),
    Scenario(
        name="idle",
        jobs=1,
        measure=waiting.idle,
        waits=False,
        sides=("ours",),
        metrics=(Metric("transactions/s", 2, False), Metric("% of a core", None, False)),
    ),
    _trip("trip", None),
    _trip("trip-traces", 0.85, against="trip"),
    _trip("trip-unsampled", 0.8, against="trip"),
    _trip("trip-metrics", None, against="trip"),
    _memory("thousand", memory.running, 1_000),
    _memory("million", memory.running, 1_000_000, against="memory-thousand"),
    _memory("stream-few", memory.enqueueing, 5_000, waits=False),
    _memory("stream-million", memory.enqueueing, 1_000_000, waits=False, against="memory-stream-few"),
]
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def chosen(text: str) -> list[Scenario]:
    """Return the scenarios named in a string such as "drain,insert-one", and those they are compared with.

    Raises `ValueError` for an unknown name.
    """
    names: set[str] = set()
    for word in text.split(","):
        found = [name for name in BY_NAME if name == word or name.startswith(f"{word}-")]
        if not found:
            raise ValueError(f"there is no scenario {word!r}; choose from {', '.join(BY_NAME)}")
        names.update(found)
    names.update(against for name in names.copy() if (against := BY_NAME[name].against))
    return [scenario for scenario in SCENARIOS if scenario.name in names]
