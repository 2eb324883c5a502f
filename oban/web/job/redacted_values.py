"""Documents that a user edits without seeing all of their values: what is not shown stays as it is.

The editor shows a redacted value as `[redacted]`. Each has to stay where it is: if one could be removed, what
repeats it in other places, such as a traceback, would not be recognized as secret any more.
"""

from collections.abc import Iterator
from typing import Any

from oban.errors import InvalidJob
from oban.secret_values import REDACTED

#: The place in a document, as keys and indexes.
_Path = tuple[str | int, ...]


def restored(field: str, sent: dict[str, Any], shown: Any, stored: Any) -> dict[str, Any]:
    """A document as it was sent, with the stored values in place of those that were not shown.

    Args:
        field: "args" or "meta", for the error.
        sent: What the user has sent.
        shown: What the editor has shown, which is `stored` with some texts replaced.
        stored: What the row has.

    Raises:
        InvalidJob: A value that is not shown was removed, moved or changed.
    """
    places = {path: text for path, text in _texts(shown, ()) if REDACTED in text}
    for path, text in _texts(sent, ()):
        if REDACTED in text and places.get(path) != text:
            raise InvalidJob(field, f"has {REDACTED} {_where(path)}, where no such value was")
    result: dict[str, Any] = _merged(field, sent, shown, stored)
    found = {path for path, text in _texts(sent, ()) if REDACTED in text}
    if missing := [path for path in places if path not in found]:
        problem = f"must keep the redacted value {_where(missing[0])}: it cannot be changed or removed here"
        raise InvalidJob(field, problem)
    return result


def _texts(document: Any, path: _Path) -> Iterator[tuple[_Path, str]]:
    """Every text in a document, with its place."""
    if isinstance(document, str):
        yield path, document
    elif isinstance(document, (dict, list)):
        for step, item in document.items() if isinstance(document, dict) else enumerate(document):
            yield from _texts(item, (*path, step))


def _merged(field: str, sent: Any, shown: Any, stored: Any) -> Any:
    if sent == shown:
        return stored
    if isinstance(sent, dict) and isinstance(shown, dict) and isinstance(stored, dict):
        if shown.keys() != stored.keys():
            raise InvalidJob(field, "has redacted values in its keys, so that it cannot be edited here")
        return {
            key: _merged(field, item, shown[key], stored[key]) if key in shown else item
            for key, item in sent.items()
        }
    if isinstance(sent, list) and isinstance(shown, list) and isinstance(stored, list):
        return [
            _merged(field, item, shown[index], stored[index]) if index < len(shown) else item
            for index, item in enumerate(sent)
        ]
    return sent


def _where(path: _Path) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step[:40]}" for step in path[:8])
    return f"at {steps.lstrip('.')[:200]}"
