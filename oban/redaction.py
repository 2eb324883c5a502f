"""Redaction: which fields of a job's args and meta nobody but its worker may see."""

from collections.abc import Iterable
from typing import Any

from oban import display
from oban.errors import ConfigError
from oban.registry import registry

#: What is shown instead of a redacted value.
REDACTED = "[redacted]"
#: The key of `meta` with the redacted names of a job, for programs that do not know its worker.
META_KEY = "redact"


def parse(value: object) -> frozenset[str]:
    """The option `redact`. Raises `ConfigError` unless it is a name or a list of names."""
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, (list, tuple, set, frozenset)):
        raise ConfigError(f"redact must be a name or a list of names, not {display.shown(value)}")
    for name in listed:
        if not isinstance(name, str) or not name:
            raise ConfigError(f"redact must have names of fields, not {display.shown(name)}")
    return frozenset(listed)


def args(job: Any) -> dict[str, Any]:
    """The args of a job with the values of its redacted fields replaced, as a copy."""
    copy: dict[str, Any] = replaced(job.__dict__["args"], names_of(job))
    return copy


def meta(job: Any) -> dict[str, Any]:
    """The meta of a job with the values of its redacted fields replaced, as a copy."""
    copy: dict[str, Any] = replaced(job.__dict__["meta"], names_of(job))
    return copy


def text(job: Any, value: str) -> str:
    """A text about a job, such as a traceback, with the values of its redacted fields replaced."""
    for secret in sorted(set(_secrets(job)), key=len, reverse=True):
        value = value.replace(secret, REDACTED)
    return value


def names_of(job: Any) -> frozenset[str]:
    """The names of the fields that are redacted in a job."""
    values = job.__dict__
    stored = values["meta"].get(META_KEY) if isinstance(values["meta"], dict) else None
    listed = {name for name in stored if isinstance(name, str)} if isinstance(stored, list) else set()
    worker = registry.get(values["worker"])
    return frozenset(listed | set(getattr(worker, "redacted", ())))


def replaced(value: Any, names: frozenset[str]) -> Any:
    """A copy of a JSON value, in which the values of these keys are replaced at any depth."""
    if isinstance(value, dict):
        return {key: REDACTED if key in names else replaced(inner, names) for key, inner in value.items()}
    if isinstance(value, list):
        return [replaced(inner, names) for inner in value]
    return value


def _secrets(job: Any) -> Iterable[str]:
    names = names_of(job)
    if not names:
        return
    waiting: list[tuple[Any, bool]] = [(job.__dict__["args"], False), (job.__dict__["meta"], False)]
    while waiting:
        value, is_secret = waiting.pop()
        if isinstance(value, dict):
            waiting += [(inner, is_secret or key in names) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(inner, is_secret) for inner in value]
        elif is_secret and isinstance(value, str) and value:
            yield value
