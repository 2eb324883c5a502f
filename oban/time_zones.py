"""Finds time zones by their names in the IANA database."""

import datetime
from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from oban import display
from oban.errors import ConfigError

_EXAMPLE = "time zones have names such as 'Europe/Berlin' or 'UTC'"


def name_of(timezone: object) -> str:
    """The name of a time zone: a string as it is, or the key of a `ZoneInfo`. Raises `ConfigError`."""
    if isinstance(timezone, str):
        return timezone
    if timezone is datetime.UTC:
        return "UTC"
    # `key` of zoneinfo and `zone` of pytz.
    for attribute in ("key", "zone"):
        name = getattr(timezone, attribute, None)
        if isinstance(timezone, datetime.tzinfo) and isinstance(name, str):
            return name
    raise ConfigError(f"{display.shown(timezone)} is no time zone with a name; {_EXAMPLE}")


def find(name: str) -> datetime.tzinfo:
    """The time zone of this name. Raises `ConfigError` if there is none, or no data about time zones."""
    # This one needs no data.
    if name == "UTC":
        return datetime.UTC
    try:
        return ZoneInfo(name)
    # A name can be that of a folder, or not be one of a file at all.
    except (KeyError, ValueError, OSError):
        raise ConfigError(_problem(name)) from None


def _problem(name: str) -> str:
    known = available_timezones()
    if not known:
        return (
            f"the time zone {display.shown(name)} cannot be found because this system has no time zone data:"
            " install the package tzdata"
        )
    near = _similar(name, known)
    advice = f"did you mean '{near}'?" if near else _EXAMPLE
    return f"there is no time zone {display.shown(name)}; {advice}"


def _similar(name: str, known: set[str]) -> str | None:
    wanted = name[:100].strip().replace(" ", "_").lower()
    by_case = {zone.lower(): zone for zone in sorted(known)}
    if wanted in by_case:
        return by_case[wanted]
    # Many write only the city.
    if cities := [zone for zone in sorted(known) if zone.lower().rpartition("/")[2] == wanted]:
        return cities[0]
    near = get_close_matches(wanted, by_case, 1)
    return by_case[near[0]] if near else None
