"""The page `periodic`, and the page of one entry."""

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.responses import Response

from oban import dialects, redacted
from oban.amounts import counted, duration
from oban.cron import Cron
from oban.errors import ConfigError
from oban.periodic import PeriodicInfo
from oban.web import cron_words, periodic_actions, periodic_form, periodic_history
from oban.web.bars import Bar
from oban.web.errors import NotFound
from oban.web.periodic_history import Run
from oban.web.routing import Page
from oban.web.visit import Visit

#: How many entries a page shows.
ENTRIES = 100
#: Seconds that a time can be past before its job counts as late, and up to how many late ones are counted.
LATE, MOST_LATE = 60.0, 100


@dataclass(frozen=True, slots=True)
class EntryRow:
    """An entry as pages show it.

    Attributes:
        info: The entry, without redacted values.
        words: Its expression in words; None if they cannot be told.
        status: "active", "paused", "gone", or "broken" if its expression or zone is wrong.
        zone_next: Its next time in its own zone; None without one.
        late: What is known about times that have passed without a job; None if there are none.
        runs: Its latest ticks.
        bars: The chart of them.
    """

    info: PeriodicInfo
    words: str | None
    status: str
    zone_next: str | None
    late: str | None
    runs: list[Run]
    bars: list[Bar]


async def show(visit: Visit) -> Response:
    """`GET /periodic`."""
    wanted = visit.request.query_params.get("q", "").strip()
    after = visit.request.query_params.get("after")
    async with visit.read() as session:
        at = await _now(visit, session)
        entries = [info for info in await visit.oban.list_periodic(session) if _matches(info, wanted)]
        shown = [info for info in entries if after is None or info.name > after][: ENTRIES + 1]
        runs = await periodic_history.read(visit.oban, session, [info.name for info in shown[:ENTRIES]])
    return visit.render(
        "periodic.html",
        rows=[_row(info, at, runs.get(info.name, [])) for info in shown[:ENTRIES]],
        number=len(entries),
        following=shown[ENTRIES - 1].name if len(shown) > ENTRIES else None,
        wanted=wanted,
    )


async def show_one(visit: Visit) -> Response:
    """`GET /periodic/one?name=…`."""
    name = visit.request.query_params.get("name", "")
    async with visit.read() as session:
        at = await _now(visit, session)
        found = next((info for info in await visit.oban.list_periodic(session) if info.name == name), None)
        if found is None:
            raise NotFound(f"There is no periodic entry {name[:128]!r}.")
        runs = await periodic_history.read(visit.oban, session, [name])
    row = _row(found, at, runs.get(name, []))
    shown = {key: row.info.override[key] for key in row.info.override if visit.access.shows(key)}
    try:
        upcoming = cron_words.next_times(found.expression, found.timezone, at)
    except ConfigError:
        upcoming = []
    return visit.render(
        "periodic_entry.html",
        row=row,
        changed=shown,
        changes_hidden=len(row.info.override) - len(shown),
        upcoming=[] if found.paused or found.gone else upcoming,
    )


async def _now(visit: Visit, session: AsyncSession) -> datetime:
    dialect = dialects.for_bind(visit.oban.engine.sync_engine)
    at: datetime = (await session.execute(select(dialect.now()))).scalar_one()
    return at


def _matches(info: PeriodicInfo, wanted: str) -> bool:
    return wanted.lower() in f"{info.name}\n{info.worker}".lower()


def _row(info: PeriodicInfo, at: datetime, runs: list[Run]) -> EntryRow:
    try:
        cron = Cron.parse(info.expression, info.timezone)
    except ConfigError:
        cron = None
    status = "gone" if info.gone else "paused" if info.paused else "active" if cron else "broken"
    return EntryRow(
        info=redacted.periodic(info),
        words=cron_words.words(info.expression),
        status=status,
        zone_next=_in_zone(info.next_at, cron),
        late=_late(info, cron, at) if status == "active" and cron else None,
        runs=runs,
        bars=periodic_history.bars(runs),
    )


def _in_zone(time: datetime | None, cron: Cron | None) -> str | None:
    return None if time is None or cron is None else f"{time.astimezone(cron.zone):%Y-%m-%d %H:%M %Z}"


def _late(info: PeriodicInfo, cron: Cron, at: datetime) -> str | None:
    """What is known about times that have passed without a job."""
    if info.last_tick is None or cron.is_reboot:
        return None
    missed = cron.newest(info.last_tick, at, MOST_LATE)
    if not missed or (at - missed[0]).total_seconds() < LATE:
        return None
    number = f"{MOST_LATE}+ times" if len(missed) >= MOST_LATE else counted(len(missed), "time")
    within = f"of the last {duration(info.window)}"
    follows = {
        "skip": "none of them is made up for",
        "latest": f"the newest one {within} is made up for once a node leads",
        "all": f"all {within} are made up for once a node leads",
    }.get(str(info.catch_up), f"the newest {info.catch_up} {within} are made up for once a node leads")
    since = missed[0].astimezone(UTC)
    return f"{number} passed without a job since {since:%Y-%m-%d %H:%M} UTC: {follows}."


ROUTES = (
    Page("/periodic", show),
    Page("/periodic/one", show_one),
    *periodic_actions.ROUTES,
    *periodic_form.ROUTES,
)
