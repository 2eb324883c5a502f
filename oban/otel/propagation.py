"""The context of a trace in `meta`, through the global propagator."""

import logging
from collections.abc import Mapping
from typing import Any

from opentelemetry import propagate
from opentelemetry.context import Context
from opentelemetry.context import attach as attach_context
from opentelemetry.propagators.textmap import Getter

logger = logging.getLogger("oban.otel")

#: The longest value that is read, in characters: no standard allows a longer one.
MAX_VALUE = 8192


class _MetaGetter(Getter[Mapping[str, Any]]):
    """Reads `meta`, in which another program can have stored anything."""

    def get(self, carrier: Mapping[str, Any], key: str) -> list[str] | None:
        value = carrier.get(key)
        return [value] if isinstance(value, str) and len(value) <= MAX_VALUE else None

    def keys(self, carrier: Mapping[str, Any]) -> list[str]:
        return [*carrier]


_getter = _MetaGetter()
_EMPTY = Context()


def inject(context: Context | None = None) -> dict[str, str]:
    """The keys of `meta` for a context, or for the current one."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context)
    return carrier


def extract(meta: object) -> Context:
    """The context that `meta` brings, or an empty one. Never raises."""
    if not isinstance(meta, dict) or not meta:
        return _EMPTY
    try:
        return propagate.extract(meta, _EMPTY, _getter)
    # A propagator of the application can raise anything for a hostile value.
    except Exception:
        logger.warning("the context in the meta of a job cannot be read", exc_info=True)
        return _EMPTY


def attach(carrier: Mapping[str, str]) -> None:
    """Make the context of a carrier the current one, as long as this execution context lasts."""
    attach_context(propagate.extract(carrier, _EMPTY))
