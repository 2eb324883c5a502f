"""Tracebacks and other code, split into tokens with the classes that app.css colours."""

from collections.abc import Iterator
from typing import NamedTuple

from pygments.lexers import Python3TracebackLexer  # type: ignore[import-untyped]
from pygments.token import Comment, Generic, Keyword, Literal, Name, String, Token  # type: ignore[import-untyped]

#: Characters of a traceback that are shown: more would make the page slow.
LIMIT = 40_000

_KINDS = (
    (Keyword, "keyword"),
    (String, "string"),
    (Literal, "literal"),
    (Comment, "comment"),
    (Generic.Error, "error"),
    (Generic.Traceback, "comment"),
    (Name.Function, "name"),
    (Name.Class, "name"),
    (Name.Exception, "error"),
)


class Fragment(NamedTuple):
    """A part of code, with its class, or None."""

    text: str
    kind: str | None


def traceback(text: str) -> Iterator[Fragment]:
    """Split a traceback of Python, or any text that is meant to be one, into fragments.

    Only its last `LIMIT` characters are used, since the error is at the end.
    """
    kind, gathered = None, ""
    for token, part in Python3TracebackLexer().get_tokens(text[-LIMIT:]):
        new = _kind(token)
        if new != kind and gathered:
            yield Fragment(gathered, kind)
            gathered = ""
        kind, gathered = new, gathered + part
    if gathered:
        yield Fragment(gathered, kind)


def _kind(token: object) -> str | None:
    while token is not Token:
        for known, kind in _KINDS:
            if token is known:
                return kind
        token = token.parent  # type: ignore[attr-defined]
    return None
