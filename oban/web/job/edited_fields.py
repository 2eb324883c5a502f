"""The fields of a job as texts that a form shows, and the changes that a form with other texts means."""

import difflib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from oban import encryption, fields, redaction
from oban.encoding import Undecodable
from oban.errors import InvalidJob
from oban.models import Job
from oban.redaction import META_KEY
from oban.web import hiding
from oban.web.access import Access
from oban.web.job import copies, documents, redacted_values, stored_values
from oban.web.job.forms import Form

#: The fields that are edited, and `state`, which is only compared.
FIELDS = ("worker", "args", "queue", "priority", "max_attempts", "tags", "meta", "at")
#: The longest document that can be edited here, in characters.
LONGEST = 200_000
#: The keys of meta that Oban sets itself, which are not edited.
OWN_META = frozenset({META_KEY, "progress", "recorded", "return"})
#: How many lines of a change are shown.
_LINES = 400


class RowChanged(Exception):
    """The job is not as the form has shown it. `names` has the fields that differ."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


@dataclass(slots=True, kw_only=True)
class Shown:
    """A job as a form shows it.

    Attributes:
        texts: The text of each field that can be edited, and the state.
        reasons: Why a field cannot be edited, by its name.
        args, meta: The documents that are shown; None if they are not.
        stored_args, stored_meta: The same with the values that are not shown.
        redacted: The names of the redacted fields.
        worker: The worker of the row.
    """

    texts: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    args: Any = None
    meta: Any = None
    stored_args: Any = None
    stored_meta: Any = None
    redacted: bool = False
    names: frozenset[str] = frozenset()

    @property
    def seen(self) -> dict[str, str]:
        """A digest of each text, by which a later request can tell whether it has changed."""
        return {name: digest(text) for name, text in self.texts.items()}


def digest(text: str) -> str:
    """A short text that stands for another one. It is only made of what the user sees."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:20]


def show(job: Job, access: Access) -> Shown:
    """A job as a form shows it. Afterwards, the instance has no values that the user may not see."""
    shown = Shown(stored_args=job.args, stored_meta=job.meta, names=redaction.names_of(job))
    is_encrypted = encryption.is_sealed(job.args) or encryption.of(job.worker) is not None
    hiding.job(job, access)
    state = "unknown" if job.state is None else job.state.value
    shown.texts["state"] = f"{state}, attempt {stored_values.text(job.attempt)}"
    for name in ("worker", "queue", "priority", "max_attempts"):
        _show(shown, name, getattr(job, name))
    tags = stored_values.texts(job.tags)
    _show(shown, "tags", "\n".join(tags), lines=True)
    if any("\n" in tag or tag != tag.strip() for tag in tags) or not isinstance(job.tags, list):
        _hide(shown, "tags", "has values that a form cannot show")
    due = stored_values.time(job.scheduled_at)
    _show(shown, "at", "" if due is None else f"{due:%Y-%m-%d %H:%M:%S}")
    for name in ("args", "meta"):
        stored = getattr(job, name)
        if not access.shows(name):
            _hide(shown, name, "is hidden from you, and stays as it is")
        elif name == "args" and is_encrypted:
            _hide(shown, name, "is encrypted, and stays as it is")
        elif isinstance(stored, Undecodable) or not isinstance(stored, dict):
            _hide(shown, name, "is no JSON object: another program has stored it")
        else:
            _show_document(shown, name, stored)
    return shown


def _show(shown: Shown, name: str, value: Any, *, lines: bool = False) -> None:
    text = stored_values.text(value)
    shown.texts[name] = text
    plain = text.replace("\n", "") if lines else text
    if plain != plain.strip() or not plain.isprintable():
        _hide(shown, name, "has characters that a form cannot show")


def _show_document(shown: Shown, name: str, stored: dict[str, Any]) -> None:
    whole = shown.stored_args if name == "args" else shown.stored_meta
    if name == "meta":
        stored, whole = ({key: each[key] for key in each if key not in OWN_META} for each in (stored, whole))
        shown.meta = stored
    else:
        shown.args = stored
    shown.redacted |= stored != whole
    text = documents.pretty(stored)
    if len(text) > LONGEST:
        _hide(shown, name, f"is {len(text):,} characters long, too long for a form: use update_job")
    else:
        shown.texts[name] = text


def _hide(shown: Shown, name: str, reason: str) -> None:
    shown.texts.pop(name, None)
    shown.reasons[name] = reason


def changed(form: Form, seen: Mapping[str, str]) -> list[str]:
    """The fields whose texts are other ones than those that the form was filled with."""
    return [name for name in FIELDS if name in form and name in seen and digest(form.raw(name)) != seen[name]]


def parse(form: Form, names: list[str]) -> dict[str, Any]:
    """The values that a form has for some fields. What is wrong is noted in the form."""
    found: dict[str, Any] = {}
    for name in names:
        if name in ("args", "meta"):
            found[name] = form.json_object(name)
        elif name in ("priority", "max_attempts"):
            found[name] = form.integer(name)
        elif name == "tags":
            found[name] = form.tags(name)
        elif name == "at":
            found["scheduled_at"] = form.time(name)
        else:
            found[name] = form.text(name)
    for name, value in found.items():
        own = "at" if name == "scheduled_at" else name
        if value is None and own not in form.problems:
            form.problems[own] = "must not be empty"
    if (delay := form.duration("in")) is not None:
        found["schedule_in"] = delay
    check_each(form, found)
    return found


def check_each(form: Form, found: Mapping[str, Any]) -> None:
    """Note in the form what no job can have, so that all problems are shown at once."""
    for name, value in found.items():
        if value is not None:
            try:
                fields.SETTABLE[name](value)
            except InvalidJob as error:
                form.refuse(error)
    for name in OWN_META.intersection(found.get("meta") or ()):
        form.problems["meta"] = f"has the key {name}, which Oban sets itself"


def changes(shown: Shown, sent: Mapping[str, Any]) -> dict[str, Any]:
    """The changes for `update_job`, with the stored values in place of those that were not shown.

    Raises `InvalidJob`.
    """
    made = dict(sent)
    if "args" in made:
        made["args"] = redacted_values.restored("args", made["args"], shown.args, shown.stored_args)
    stored = stored_values.mapping(shown.stored_meta)
    if "meta" in made:
        own = {key: value for key, value in stored.items() if key in OWN_META}
        rest = {key: value for key, value in stored.items() if key not in OWN_META}
        made["meta"] = {**redacted_values.restored("meta", made["meta"], shown.meta, rest), **own}
    if shown.names and made.keys() & {"meta", "worker"}:
        # Also with another worker, and after a restart without its class, the same values are redacted.
        made["meta"] = copies.marked(made.get("meta", stored), shown.names)
    return made


def check(shown: Shown, seen: Mapping[str, str], names: list[str]) -> None:
    """Raise `RowChanged` unless the state of a job, and its changed fields, are as the form showed them."""
    now = shown.seen
    if other := [name for name in ("state", *names) if now.get(name) != seen.get(name)]:
        raise RowChanged(other)


def difference(before: str, after: str) -> list[tuple[str, str]]:
    """The lines of a change, each with the class "added" or "removed", or without one."""
    kinds = {"+": "added", "-": "removed"}
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    found = [(kinds.get(line[:1], ""), line) for line in lines if not line.startswith(("+++", "---", "@@"))]
    if len(found) > _LINES:
        found = [*found[:_LINES], ("", f"… {len(found) - _LINES:,} more lines")]
    return found


def check_values(made: Mapping[str, Any]) -> None:
    """Raise `InvalidJob` for a value that no job can have."""
    fields.check(made)
