"""`Term`: a part of a query. The filters that there are, and the values that they take."""

import json
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, TypeAlias

from oban import durations
from oban.job_search import quoting

STATES = tuple(
    "available scheduled suspended executing retryable completed discarded cancelled".split()  # noqa: SIM905
)
#: Filters whose values are names. Those of `PATTERNS` can have `*` for any characters.
NAMES = ("queue", "worker", "tag", "node")
PATTERNS = ("queue", "worker")
#: Filters whose values are integers, with the least and the largest one.
NUMBERS = {"id": (1, 2**63 - 1), "priority": (0, 9), "attempt": (0, 32_767), "max_attempts": (1, 32_767)}
#: Filters by a time. A duration is counted back from now, and for `scheduled` forward.
TIMES = ("inserted", "scheduled", "attempted", "completed", "cancelled", "discarded")
DOCUMENTS = ("args", "meta")
KEYS = ("state", *NAMES, *NUMBERS, *TIMES, *DOCUMENTS)

Operator: TypeAlias = Literal["", "<", "<=", ">", ">="]


@dataclass(frozen=True, slots=True)
class Pattern:
    """A name in which `*` stands for any characters."""

    text: str


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value at a path: `args.customer:*`."""


@dataclass(frozen=True, slots=True)
class Age:
    """A time relative to now, such as `1h`."""

    text: str

    @property
    def seconds(self) -> float:
        return durations.parse(self.text)


#: A value as its filter understands it.
Value: TypeAlias = "str | int | float | bool | Pattern | Anything | Age | date | datetime | None"


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a query.

    Attributes:
        key: The name of a filter; empty for a word.
        values: Any of these applies. A word is the only value of its term.
        path: For args and meta, the keys that lead to the value.
        operator: How a number or a time is compared; empty for equality.
        negated: Whether the term applies to the jobs that it would otherwise leave out.
    """

    key: str
    values: tuple[Value, ...]
    path: tuple[str, ...] = ()
    operator: Operator = ""
    negated: bool = False

    def __str__(self) -> str:
        """The term as text, which is read as the same term."""
        sign = "-" if self.negated else ""
        if not self.key:
            return sign + quoting.word(str(self.values[0]))
        name = ".".join([self.key, *map(quoting.path_key, self.path)])
        return f"{sign}{name}:{self.operator}{','.join(self._written(value) for value in self.values)}"

    def _written(self, value: Value) -> str:
        match value:
            case Pattern(text) | Age(text):
                return text
            case Anything():
                return "*"
            case datetime() | date():
                return value.isoformat()
            case str() if self.key in DOCUMENTS:
                is_text = quoting.is_bare(value) and quoting.scalar(value) == value and value != "*"
                return value if is_text else quoting.quoted(value)
            case str() if self.key in PATTERNS and "*" in value:
                return quoting.quoted(value)
            case str():
                return value if quoting.is_bare(value) else quoting.quoted(value)
        return json.dumps(value)


def id_of(text: str) -> int | None:
    """The id of a job that a word can be; None if it is no number, or one that no job has."""
    least, most = NUMBERS["id"]
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not least <= int(text) <= most:
        return None
    return int(text)
