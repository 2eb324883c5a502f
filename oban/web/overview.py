"""The overview: whether all is well, and what has happened lately."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from starlette.responses import Response

from oban.job_search.language import written
from oban.job_search.terms import Term
from oban.repository.stats import QueueStats
from oban.web.error_pages import as_web_error
from oban.web.errors import WebError
from oban.web.queue_figures import BEHIND_AFTER
from oban.web.routing import Page
from oban.web.sampler import NO_ANSWER, LiveSample
from oban.web.trends import EXAMINED, WINDOWS, Trends
from oban.web.visit import Visit


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a chart: its name, the colour's name in the style sheet, and a value for each time."""

    name: str
    colour: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart, and the table with the same numbers."""

    id: str
    title: str
    unit: str
    note: str
    times: Sequence[int]
    series: Sequence[Series]

    @property
    def document(self) -> str:
        """The chart as JSON, for the script that draws it."""
        lines = [{"name": each.name, "colour": each.colour, "values": each.values} for each in self.series]
        return orjson.dumps({"times": self.times, "unit": self.unit, "series": lines}).decode()

    @property
    def rows(self) -> list[tuple[datetime, list[float | None]]]:
        """The rows of the table, the newest first."""
        columns = zip(*(each.values for each in self.series), strict=True)
        rows = [
            (datetime.fromtimestamp(at, UTC), [*values])
            for at, values in zip(self.times, columns, strict=True)
        ]
        return rows[::-1]


@dataclass(frozen=True, slots=True)
class BehindQueue:
    """A queue whose jobs wait, for how many seconds, and why."""

    queue: str
    available: int
    truncated: bool
    age: float
    reason: str


async def show(visit: Visit) -> Response:
    """`GET /`."""
    window = visit.request.query_params.get("window", "1h")
    if window not in WINDOWS:
        raise WebError(f"window can be {', '.join(WINDOWS)}")
    summaries = visit.instance.summaries
    sample, away = await _sample(visit)
    if away:
        # What the checks say of a database that is away is no longer true once it is back.
        summaries.health.expire()
    trends, failures = await summaries.trends[window].get(), await summaries.failures.get()
    return visit.render(
        "overview.html",
        window=WINDOWS[window],
        windows=WINDOWS.values(),
        sample=sample,
        behind=behind_queues(sample) if sample else [],
        trends=trends,
        charts=make_charts(trends) if trends else [],
        failures=failures,
        health=await summaries.health.get(),
        examined=EXAMINED,
        search=functools.partial(_search, visit),
        late=summaries.trends[window].failed or summaries.failures.failed,
        away=away,
    )


def _search(visit: Visit, *states: str, **names: str) -> str:
    """The address of the jobs in these states, and with these names of a queue or a worker."""
    terms = [Term("state", states), *(Term(key, (name,)) for key, name in names.items())]
    return visit.link("jobs", q=written(terms))


async def _sample(visit: Visit) -> tuple[LiveSample | None, WebError | None]:
    """What the instance does, or why this is not known."""
    try:
        return await visit.instance.live.sample(), None
    except NO_ANSWER as error:
        # The page says so, and shows what is known from before.
        return None, as_web_error(error)


def behind_queues(sample: LiveSample) -> list[BehindQueue]:
    """The queues whose jobs have waited for long, or that nothing works on; the longest wait first."""
    found = [
        BehindQueue(
            queue=str(each.queue),
            available=each.counts["available"],
            truncated="available" in each.truncated,
            age=each.oldest_available_age or 0.0,
            reason=_reason(each),
        )
        for each in sample.stats.queues
        if each.counts["available"]
        and (each.status in ("paused", "idle") or (each.oldest_available_age or 0.0) >= BEHIND_AFTER)
    ]
    return sorted(found, key=lambda each: -each.age)


def _reason(queue: QueueStats) -> str:
    if queue.status == "idle":
        return "No live node runs this queue."
    if queue.status == "paused":
        return "It is paused on all of its nodes."
    running = queue.counts["executing"]
    if queue.limit is not None and running >= queue.limit:
        busy = "Its only place is taken." if queue.limit == 1 else f"All {queue.limit:,} places are taken."
    elif queue.limit is not None:
        busy = f"{running:,} of {queue.limit:,} places are taken."
    else:
        busy = f"{running:,} jobs are running."
    if queue.status == "partly paused":
        paused = sum(each.paused for each in queue.nodes)
        return f"It is paused on {paused:,} of {len(queue.nodes):,} nodes. {busy}"
    return busy


def make_charts(trends: Trends) -> list[Chart]:
    """The charts of a window."""
    per = trends.window.step / 60
    rates = {name: _rates(counts, trends, per) for name, counts in trends.finished.items()}
    return [
        Chart(
            "throughput",
            "Finished jobs",
            "jobs per minute",
            "Jobs that have reached a final state and are still stored.",
            trends.times,
            [
                Series("completed", "good", rates["completed"]),
                Series("cancelled", "muted", rates["cancelled"]),
                Series("discarded", "danger", rates["discarded"]),
            ],
        ),
        Chart(
            "failures",
            "Failures",
            "per minute",
            "Attempts that failed and are followed by another one, and jobs that were discarded.",
            trends.times,
            [
                Series("failed attempts", "warning", _rates(trends.failed, trends, per)),
                Series("discarded jobs", "danger", rates["discarded"]),
            ],
        ),
        Chart(
            "latency",
            "Time in the queue",
            "seconds",
            "From when a job was due until it started, of finished jobs.",
            trends.times,
            [
                Series("median", "info", trends.wait["p50"]),
                Series("95th percentile", "warning", trends.wait["p95"]),
            ],
        ),
        Chart(
            "depth",
            "Waiting jobs",
            "jobs",
            "Reconstructed from the stored jobs: how many were due and had not started, at their last wait.",
            trends.times,
            [Series("waiting", "info", trends.depth)],
        ),
    ]


def _rates(counts: Sequence[int], trends: Trends, minutes: float) -> list[float | None]:
    # The last step is not over.
    last = max(1.0, trends.at.timestamp() - trends.times[-1]) / 60
    spans = [minutes] * (len(counts) - 1) + [last]
    return [_rounded(count / span) for count, span in zip(counts, spans, strict=True)]


def _rounded(value: float) -> float:
    """With three digits."""
    return round(value, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else 0.0


ROUTES = (Page("/", show),)
