"""The audit trail: an event and a log record about each change that a user makes, and about each refusal."""

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection

from oban.errors import InvalidArgument
from oban.job_search import language
from oban.job_search.terms import Term
from oban.telemetry import DashboardAction, DashboardRefused, Telemetry

if TYPE_CHECKING:
    from oban.web.visit import Visit

logger = logging.getLogger("oban.web")

#: How many ids an event has, and how many characters the filter and the target of an event can have.
IDS = 100
TEXT = 500

#: What stands for a value that is not told.
LEFT_OUT = "…"
#: The filters whose values can be secrets: those on args and meta, and words, which are searched in them.
_SECRET = ("args", "meta", "")


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
    who = repr(user) if user else "a request"
    logger.info("%s from %s: refused %s at %r: %s", who, client, name, path, reason)


def without_values(text: str) -> str:
    """A query without the values of args and meta, and without words; nothing of it if it cannot be read."""
    try:
        terms = language.parse(text)
    except InvalidArgument:
        return LEFT_OUT
    return " ".join(str(term) if term.key not in _SECRET else _without_value(term) for term in terms)


def _without_value(term: Term) -> str:
    sign = "-" if term.negated else ""
    # The path is written as it is in a query.
    name = str(replace(term, values=(0,), operator="", negated=False)).removesuffix("0") if term.key else ""
    return f"{sign}{name}{term.operator}{LEFT_OUT}"


def client_of(request: HTTPConnection) -> str | None:
    """The address that a request came from."""
    return None if request.client is None else request.client.host
