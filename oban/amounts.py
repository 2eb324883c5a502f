"""Numbers, durations and sizes, as sentences and tables contain them."""

_UNITS = (("day", 86_400), ("hour", 3600), ("minute", 60))


def counted(number: int, noun: str) -> str:
    """A number of things, such as `1 job` and `1,200 jobs`."""
    return f"1 {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float, decimals: int = 0) -> str:
    """A duration in the largest unit of which there are at least two, such as `90 seconds` and `3 minutes`.

    With `decimals`, seconds are rounded to so many, which are shown if there are less than ten seconds.
    A negative duration counts as none.
    """
    if decimals:
        seconds = round(seconds, decimals)
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return counted(int(seconds // length), unit)
    if decimals and seconds < 10:
        return f"{max(0.0, seconds):.{decimals}f} seconds"
    return counted(max(0, int(seconds)), "second")


def short_duration(seconds: float | None) -> str:
    """A duration in at most six characters, such as `59s`, `2m05s`, `3h20m` and `12d`; `-` for None."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    if left < 3600:
        return f"{left // 60}m{left % 60:02}s"
    if left < 86_400:
        return f"{left // 3600}h{left % 3600 // 60:02}m"
    return f"{left // 86_400}d{left % 86_400 // 3600:02}h" if left < 864_000 else f"{left // 86_400}d"


def size(number: float) -> str:
    """A number of bytes in its largest unit, such as `512 bytes` and `24 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GB"
