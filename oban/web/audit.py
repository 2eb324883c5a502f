"""The audit trail: an event and a log record about each change that a user makes, and about each refusal."""

import logging
import re
from collections.abc import Collection
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from oban.telemetry import DashboardAction, DashboardRefused, Telemetry

if TYPE_CHECKING:
    from oban.web.visit import Visit

logger = logging.getLogger("oban.web")

#: How many ids an event has, and how many characters the filter and the target of an event can have.
IDS = 100
TEXT = 500

#: A condition on args or meta in a filter: the path, and the value, which can be a secret.
_VALUE = re.compile(
    r"""((?<![\w.])(?:args|meta)[^\s:=<>~]*\s*(?:!?[:=]|[<>~])[:=<>~]*)\s*("(?:\\.|[^"\\])*"?|'[^']*'?|\S+)"""
)


def action(
    visit: "Visit",
    name: str,
    *,
    outcome: str = "done",
    target: str | None = None,
    ids: Collection[int] = (),
    filter: str | None = None,
    count: int | None = None,
) -> None:
    """Tell that a user has changed something."""
    target = None if target is None else target[:TEXT]
    chosen = None if filter is None else without_values(filter)[:TEXT]
    listed = tuple(ids)[:IDS]
    user, path = visit.access.user, visit.path
    visit.oban.telemetry.emit(
        DashboardAction,
        user=user,
        action=name,
        path=path,
        client=client_of(visit.request),
        outcome=outcome,
        target=target,
        ids=listed,
        filter=chosen,
        count=count,
    )
    logger.info(
        "%r has sent %s (%s): target %r, filter %r, jobs %s, count %s",
        *(user, name, outcome, target, chosen, listed, count),
    )


def refusal(
    telemetry: Telemetry, request: HTTPConnection, path: str, user: str, name: str, reason: str
) -> None:
    """Tell that a request was refused."""
    client = client_of(request)
    telemetry.emit(DashboardRefused, user=user, action=name, path=path, client=client, reason=reason)
    logger.info("%r from %s: refused %s at %r: %s", user, client, name, path, reason)


def without_values(text: str) -> str:
    """A filter without the values of args and meta."""
    return _VALUE.sub(r"\1…", text)


def client_of(request: HTTPConnection) -> str | None:
    """The address that a request came from."""
    return None if request.client is None else request.client.host
