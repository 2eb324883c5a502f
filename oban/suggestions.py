"""The ends of error messages about unknown names."""

from collections.abc import Iterable
from difflib import get_close_matches


def similar(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most similar to an unknown one, if any is."""
    if not isinstance(name, str):
        return None
    # No known name is nearly as long, and long strings take long to compare.
    return next(iter(get_close_matches(name[:100], known, 1)), None)


def similar_path(name: object, known: Iterable[str]) -> str | None:
    """The known dotted name, such as `app.jobs.Report`, whose last part is most similar to an unknown one."""
    if not isinstance(name, str):
        return None
    by_last: dict[str, list[str]] = {}
    for path in known:
        by_last.setdefault(path.rpartition(".")[2], []).append(path)
    # Names of the same module are similar as a whole, even if they have nothing else in common.
    last = similar(name.rpartition(".")[2], by_last)
    return None if last is None else similar(name, by_last[last]) or by_last[last][0]


def suggestion(name: object, known: list[str]) -> str:
    """The end of an error message about an unknown name: the most similar one, or all that are known."""
    near = similar(name, known)
    return f"; did you mean {near}?" if near else f"; known are {', '.join(sorted(known))}"
