"""The fields that a bulk update sets."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from oban import display, encoding, fields
from oban.documents.jobs import texts
from oban.errors import EncodingError, InvalidJob
from oban.fields import JobUpdate
from oban.models import Job
from oban.web.access import Access
from oban.web.errors import Refused, WebError

#: The fields of the form, in its order.
FIELDS = (
    *("queue", "priority", "max_attempts", "run_now", "scheduled_at"),
    *("add_tags", "remove_tags", "meta_key", "meta_value"),
)
#: Keys of the meta that Oban sets itself.
_OWN_KEYS = ("progress", "recorded", "return", "snoozed", "rescued", "redact")


@dataclass(frozen=True, slots=True)
class Changes:
    """What a bulk update sets in each job.

    Attributes:
        texts: The fields of the form that are not empty, for the next form.
        values: Fields and their new values.
        add, remove: Tags.
        meta: A key of the meta and its new value.
    """

    texts: Mapping[str, str]
    values: Mapping[str, Any]
    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    meta: tuple[str, Any] | None = None

    def __bool__(self) -> bool:
        return bool(self.values or self.add or self.remove or self.meta)

    def of(self, job: Job) -> JobUpdate:
        """The update of one job."""
        update: Any = dict(self.values)
        if self.add or self.remove:
            update["tags"] = sorted((set(texts(job.tags)) | set(self.add)) - set(self.remove))
        if self.meta is not None:
            key, value = self.meta
            update["meta"] = {**(job.meta if isinstance(job.meta, dict) else {}), key: value}
        return update  # type: ignore[no-any-return]

    def words(self) -> list[tuple[str, str]]:
        """What is set, as names and values."""
        found = []
        for name, value in self.values.items():
            if name == "schedule_in":
                found.append(("run", "now"))
            else:
                shown = value.isoformat() if isinstance(value, datetime) else str(value)
                found.append((name.replace("_", " "), shown))
        found += [("add the tag", tag) for tag in self.add]
        found += [("remove the tag", tag) for tag in self.remove]
        if self.meta is not None:
            found.append((f"meta {self.meta[0]}", encoding.dumps(self.meta[1])))
        return found


def parse(given: Mapping[str, Any], access: Access) -> Changes:
    """The changes that the fields of a form mean; raises `WebError`."""
    texts = {name: str(given.get(name) or "").strip() for name in FIELDS}
    texts = {name: text for name, text in texts.items() if text}
    try:
        return _parse(texts, access)
    except (InvalidJob, EncodingError) as error:
        raise WebError(f"{error}.") from None


def _parse(texts: Mapping[str, str], access: Access) -> Changes:
    values: dict[str, Any] = {}
    if "queue" in texts:
        values["queue"] = texts["queue"]
    for name in ("priority", "max_attempts"):
        if name in texts:
            values[name] = _integer(name, texts[name])
    if "run_now" in texts:
        values["schedule_in"] = 0
    if "scheduled_at" in texts:
        values["scheduled_at"] = _time(texts["scheduled_at"])
    values = fields.check(values)
    meta = None
    if "meta_key" in texts:
        key = encoding.string(texts["meta_key"], "the key of the meta")
        if not access.shows("meta"):
            raise Refused("you cannot change the meta of jobs, as it is hidden from you.")
        if key in _OWN_KEYS:
            raise WebError(f"Oban sets the key {key} of the meta itself: choose another one.")
        meta = (key, _json(texts.get("meta_value", "null")))
        fields.check({"meta": dict([meta])})
    elif "meta_value" in texts:
        raise WebError("The value of the meta needs a key.")
    return Changes(texts, values, _tags(texts.get("add_tags")), _tags(texts.get("remove_tags")), meta)


def _tags(text: str | None) -> tuple[str, ...]:
    return tuple(fields.tags((text or "").split(",")))


def _integer(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise WebError(f"{name} must be an integer, not {display.shown(text, 60)}.")
    return int(text)


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise WebError(f"{display.shown(text, 60)} is not a time such as 2026-01-30T08:00 (UTC).") from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _json(text: str) -> Any:
    try:
        return encoding.loads(text)
    except (ValueError, RecursionError):
        return text
