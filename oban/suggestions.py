"""The ends of error messages about unknown names."""

from collections.abc import Iterable
from difflib import get_close_matches


def similar(name: object, known: Iterable[str]) -> str | None:
    """The known name that is most similar to an unknown one, if any is."""
    if not isinstance(name, str):
        return None
    # No known name is nearly as long, and long strings take long to compare.
    return next(iter(get_close_matches(name[:100], known, 1)), None)


def suggestion(name: object, known: list[str]) -> str:
    """The end of an error message about an unknown name: the most similar one, or all that are known."""
    near = similar(name, known)
    return f"; did you mean {near}?" if near else f"; known are {', '.join(sorted(known))}"
