"""The table about clocks that change in `docs/guides/periodic.md` is what happens."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from oban.cron import Cron

LINES = Path("docs/guides/periodic.md").read_text().splitlines()
#: The table below this heading.
START = LINES.index("| expression | zone | day | jobs, by the local clock | in UTC | why |") + 2
ROWS = [
    [cell.strip().strip("`") for cell in line.strip("|").split("|")]
    for line in LINES[START : LINES.index("", START)]
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} {row[2]}")
def test_a_day_on_which_clocks_change(row: list[str]) -> None:
    expression, zone, date, local, in_utc, _ = row
    place, day = ZoneInfo(zone), datetime.fromisoformat(date)
    begin, end = (time.replace(tzinfo=place).astimezone(UTC) for time in (day, day + timedelta(days=1)))
    ticks = list(Cron.parse(expression, zone).ticks(begin, end))
    assert [f"{tick.astimezone(place):%H:%M}" for tick in ticks] == times(local)
    assert [f"{tick:%H:%M}" for tick in ticks] == times(in_utc)


def times(cell: str) -> list[str]:
    return [] if cell == "none" else cell.split()


def test_the_table_has_changes_in_both_directions_of_an_hour_and_of_others() -> None:
    assert len(ROWS) >= 9
    assert {row[1] for row in ROWS} > {"America/New_York", "Australia/Lord_Howe", "Pacific/Apia"}
