"""Who may do what on the dashboard."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, get_args

from starlette.requests import HTTPConnection
from starlette.responses import Response

from oban import display
from oban.errors import ConfigError

#: What a user can be allowed to do, besides looking.
Permission: TypeAlias = Literal[
    "cancel_jobs",
    "retry_jobs",
    "delete_jobs",
    "update_jobs",
    "enqueue_jobs",
    "manage_queues",
    "manage_periodic",
]
#: What can be hidden from a user.
Field: TypeAlias = Literal["args", "meta", "errors", "recorded", "log"]

PERMISSIONS: frozenset[str] = frozenset(get_args(Permission))
FIELDS: frozenset[str] = frozenset(get_args(Field))


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What `authorize` returns for a request that may see the dashboard.

    Args:
        user: Who makes the request. The name is shown, and is part of the events about what the user changes.
        permissions: What the user may change: names of `Permission` (default: nothing).
        hidden: Which fields of jobs the user does not see: names of `Field` (default: none).

    Raises:
        ConfigError: A value is not one of these.

    Example:
        `Access(user="ada", permissions=["retry_jobs", "cancel_jobs"], hidden=["args", "errors"])`
    """

    user: str
    permissions: Collection[str] = frozenset()
    hidden: Collection[str] = frozenset()

    def __post_init__(self) -> None:
        if not isinstance(self.user, str) or not self.user.strip():
            raise ConfigError(f"user must be a name, not {display.shown(self.user)}")
        object.__setattr__(self, "permissions", _checked("permissions", self.permissions, PERMISSIONS))
        object.__setattr__(self, "hidden", _checked("hidden", self.hidden, FIELDS))

    @classmethod
    def full(cls, user: str) -> Self:
        """A user who may see and change everything."""
        return cls(user=user, permissions=PERMISSIONS)

    @classmethod
    def read_only(cls, user: str, hidden: Collection[str] = frozenset()) -> Self:
        """A user who may change nothing, and does not see the `hidden` fields."""
        return cls(user=user, hidden=hidden)

    def allows(self, permission: str) -> bool:
        """Whether the user has a permission."""
        return permission in self.permissions

    def shows(self, field: str) -> bool:
        """Whether the user sees a field of jobs."""
        return field not in self.hidden


#: The argument `authorize` of `dashboard`. It returns None to refuse a request, or a response to send instead
#: of the dashboard's, such as a redirect to the login page of the application.
Authorize: TypeAlias = Callable[
    [HTTPConnection], Access | Response | Awaitable[Access | Response | None] | None
]


def _checked(name: str, values: Any, known: frozenset[str]) -> frozenset[str]:
    listed = [values] if isinstance(values, str) else values
    if not isinstance(listed, Collection):
        raise ConfigError(f"{name} must be a list of names, not {display.shown(values)}")
    for value in listed:
        if value not in known:
            raise ConfigError(f"{name} can have {', '.join(sorted(known))}, not {display.shown(value)}")
    return frozenset(listed)
