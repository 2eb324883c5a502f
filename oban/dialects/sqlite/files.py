"""Reads the name of an SQLite database: a file or a database in memory, and how SQLite opens it."""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote

from sqlalchemy import URL


@dataclass(frozen=True)
class DatabaseName:
    """The name of a database. `path` is the file's absolute path, or None for a database in memory."""

    path: Path | None
    #: The parameters of a URI; none if the name is not one.
    parameters: dict[str, str]

    @property
    def refusal(self) -> str | None:
        """Why no node can run on the file, as a sentence without a full stop; None if one can."""
        if self.parameters.get("mode") == "ro" or _is_true(self.parameters.get("immutable")):
            return "the database's URI opens it read-only; leave out mode=ro and immutable=1"
        if self.path is not None and _is_true(self.parameters.get("nolock")):
            return "the database's URI turns off locks, without which writers destroy it; leave out nolock=1"
        return None


def parse(url: URL) -> DatabaseName:
    """The name of the database of a URL.

    A name that begins with "file:" is a URI of SQLite. Whether the driver takes it for one (`uri=true`) is
    not looked at, as that can be set outside of the URL.
    """
    name = url.database or ""
    if not name.startswith("file:"):
        return DatabaseName(None if name in ("", ":memory:") else _absolute(name), {})
    rest, fragment, _ = name.removeprefix("file:").partition("#")
    path, _, query = rest.partition("?")
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    # SQLAlchemy appends those of the URL to the name, where they can get into a fragment.
    if not fragment:
        parameters |= {key: value for key, value in url.query.items() if isinstance(value, str)}
    if path.startswith("//"):
        # An authority, which is empty or "localhost".
        _, slash, path = path[2:].partition("/")
        path = slash + path
    path = unquote(path)
    in_memory = parameters.get("mode") == "memory" or parameters.get("vfs") == "memdb"
    if in_memory or path in ("", ":memory:"):
        return DatabaseName(None, parameters)
    return DatabaseName(_absolute(path), parameters)


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(path))


def _is_true(value: str | None) -> bool:
    # SQLite reads a flag in a URI like this.
    return value is not None and value.lower() not in ("", "0", "no", "false", "off")
