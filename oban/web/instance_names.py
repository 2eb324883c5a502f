"""The names of the instances of one dashboard, which are also parts of addresses."""

import re
from collections.abc import Sequence
from pathlib import PurePath

from sqlalchemy import URL

from oban.client import Oban
from oban.errors import ConfigError

#: What an address does not have to quote.
_UNSAFE = re.compile(r"[^A-Za-z0-9._~-]+")
#: Paths next to those of the instances.
_RESERVED = frozenset({"static", ".", ".."})


def keys(obans: Sequence[Oban]) -> list[str]:
    """A name for each instance: what tells it from the others, of its name, schema and database.

    Raises:
        ConfigError: Two clients are of the same instance.
    """
    parts = [_parts(oban) for oban in obans]
    differing = [values for values in zip(*parts, strict=True) if len(set(values)) > 1]
    # The first that is different for each is enough.
    for values in differing:
        found = [_slug(value) for value in values]
        if len(set(found)) == len(found):
            return found
    found = [_slug("-".join(filter(None, values))) for values in zip(*differing, strict=True)]
    if len(obans) == 1:
        return [_slug(parts[0][0])]
    if len(set(found)) < len(obans):
        raise ConfigError("two of the clients are of the same instance: give each Oban a name of its own")
    return found


def _parts(oban: Oban) -> tuple[str, str, str, str]:
    url: URL = oban.engine.sync_engine.url
    database = url.database or "memory"
    place = f"{url.host or ''}-{url.port or ''}-{database}"
    return str(oban.options.name), oban.options.prefix or "public", PurePath(database).stem, place


def _slug(text: str) -> str:
    slug = _UNSAFE.sub("-", text).strip("-")[:80]
    return f"{slug}-" if slug in _RESERVED else slug or "instance"
