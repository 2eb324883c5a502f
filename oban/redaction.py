"""Redaction: which fields of a job's args and meta nobody but its worker may see.

A worker names the fields with the option `redact`. Each of its jobs has the names in `meta["redact"]` as
well, for programs that do not know the worker.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from oban import display, encoding, encryption
from oban.errors import ConfigError
from oban.registry import registry
from oban.secret_values import REDACTED, Secrets

#: The key of `meta` with the redacted names of a job, for programs that do not know its worker.
META_KEY = "redact"


def parse(value: object) -> frozenset[str]:
    """The option `redact`. Raises `ConfigError` unless it is a name or a list of names."""
    listed = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(listed, (list, tuple, set, frozenset)):
        raise ConfigError(f"redact must be a name or a list of names, not {display.shown(value)}")
    for name in listed:
        if not isinstance(name, str) or not all(name.split(".")):
            raise ConfigError(
                "redact must have names of fields, such as 'token', or paths, such as 'card.number',"
                f" not {display.shown(name)}"
            )
    return frozenset(listed)


def names(worker: object, meta: object) -> frozenset[str]:
    """The redacted names of a job: the option of its worker's class, and the names that its meta lists."""
    stored = _names_in(meta) if isinstance(meta, dict) else ()
    known: frozenset[str] = getattr(registry.get(worker), "_redacted", frozenset())  # type: ignore[call-overload]
    return known.union(stored)


def names_of(job: Any) -> frozenset[str]:
    """The names of the fields that are redacted in a job, or in another object with a worker and meta.

    Columns of a `Job` that are not loaded are not loaded for this.
    """
    return names(_loaded(job, "worker"), _loaded(job, "meta"))


def hides(job: Any) -> bool:
    """Whether a job has anything to hide: redacted fields, or encrypted args."""
    return bool(names_of(job)) or _encrypts(job) or encryption.is_sealed(_loaded(job, "args"))


def args(job: Any) -> dict[str, Any]:
    """A copy of the args of a job, in which redacted values are replaced."""
    copy: dict[str, Any] = _document(job, "args")
    return copy


def meta(job: Any) -> dict[str, Any]:
    """A copy of the meta of a job, in which redacted values are replaced."""
    copy: dict[str, Any] = _document(job, "meta")
    return copy


def text(job: Any, value: str) -> str:
    """A text about a job, such as a traceback, in which redacted values are replaced."""
    found = secrets(job)
    return value if found is None else found.text(value)


def value(job: Any, document: Any) -> Any:
    """A JSON value about a job, such as its errors, in which redacted values and fields are replaced."""
    found = secrets(job)
    return document if found is None else found.value(replaced(document, names_of(job)))


def secrets(job: Any) -> Secrets | None:
    """The redacted values of a job as they are now; None if it has none."""
    redacted, is_encrypted = names_of(job), _encrypts(job)
    if not (redacted or is_encrypted):
        return None
    plain = _loaded(job, "args")
    if is_encrypted:
        plain = encryption.opened(_loaded(job, "worker"), plain)
    found = secrets_in([plain, _loaded(job, "meta")], redacted)
    if is_encrypted and not encryption.is_sealed(plain):
        found |= Secrets([plain])
    return found or None


def secrets_in(documents: Iterable[Any], redacted: frozenset[str]) -> Secrets:
    """The values of redacted fields in some documents."""
    found: list[Any] = []
    for document in documents:
        try:
            found += _redacted_values(document, redacted, redacted)
        except RecursionError:
            # Another program has stored it. All of it is secret, rather than nothing.
            found.append(document)
    return Secrets(found)


def mark(values: dict[str, Any]) -> None:
    """Store the redacted names of a known worker in the meta of its new or changed job.

    Args:
        values: The columns of the job. The meta is replaced by another dict, not changed.
    """
    cls = registry.get(values.get("worker", ""))
    if cls is None or not cls._redacted:
        return
    before = values.get("meta")
    if before is None:
        before = {}
    if isinstance(before, dict) and not cls._redacted <= set(_names_in(before)):
        values["meta"] = {**before, META_KEY: sorted(cls._redacted.union(_names_in(before)))}


def _names_in(meta: dict[str, Any]) -> list[str]:
    listed = meta.get(META_KEY)
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def replaced(value: Any, redacted: frozenset[str]) -> Any:
    """A copy of args or meta, in which the values of redacted fields are replaced.

    Args:
        value: A JSON value.
        redacted: Names, which are keys at any depth, and paths from the root, such as "card.number". Lists
            have no part in paths.
    """
    try:
        return _replaced(value, redacted, redacted) if redacted else value
    except RecursionError:
        return REDACTED


def _replaced(value: Any, redacted: frozenset[str], paths: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {
            key: REDACTED
            if key in redacted or key in paths
            else _replaced(inner, redacted, _below(key, paths))
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_replaced(inner, redacted, paths) for inner in value]
    return value


def _redacted_values(value: Any, redacted: frozenset[str], paths: frozenset[str]) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in redacted or key in paths:
                yield inner
            else:
                yield from _redacted_values(inner, redacted, _below(key, paths))
    elif isinstance(value, list):
        for inner in value:
            yield from _redacted_values(inner, redacted, paths)


def _below(key: str, paths: frozenset[str]) -> frozenset[str]:
    """The rest of the paths that begin with a key."""
    start = f"{key}."
    return frozenset(path[len(start) :] for path in paths if path.startswith(start))


def _document(job: Any, field: str) -> Any:
    document, redacted, is_encrypted = _loaded(job, field), names_of(job), _encrypts(job)
    if field == "args" and (is_encrypted or encryption.is_sealed(document)):
        return {encryption.FIELD: encryption.HIDDEN}
    if not (redacted or is_encrypted):
        return encoding.copied(document)
    shown, found = replaced(document, redacted), secrets(job)
    return shown if found is None else found.value(shown)


def _encrypts(job: Any) -> bool:
    """Whether the worker of a job is known and encrypts its args, of which nothing is shown."""
    return encryption.is_used and encryption.of(_loaded(job, "worker")) is not None


def _loaded(job: Any, field: str) -> Any:
    # Not through the attributes of a `Job`: they would load what is missing, and they are slow.
    return job.__dict__.get(field) if hasattr(job, "__dict__") else getattr(job, field)
