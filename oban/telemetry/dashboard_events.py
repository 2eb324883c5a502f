"""The events about what users of a dashboard change, and about what they were not allowed to do."""

from dataclasses import dataclass

from oban.telemetry.events import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardEvent(Event):
    """The base of the events about users of a dashboard.

    Attributes:
        user: The name of the user, as `authorize` has returned it; "" if it has refused the request.
        action: What the request is for, such as "cancel_jobs".
        path: The path of the request below that of the dashboard, such as "/jobs/7/cancel".
        client: The address that the request came from; None if the server does not know it.
    """

    user: str
    action: str
    path: str
    client: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardAction(DashboardEvent):
    """A user has changed something on a dashboard, or has tried to.

    Attributes:
        outcome: "done", or "failed" if the request ended with an error.
        target: What was changed, such as the name of a queue; None if that is jobs.
        ids: The ids of the jobs that were changed, at most 100 of them.
        filter: The filter that chose the jobs, without values of args and meta; None without one.
        count: How many were changed; None if that is not known.
    """

    outcome: str
    target: str | None
    ids: tuple[int, ...]
    filter: str | None
    count: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardRefused(DashboardEvent):
    """A dashboard has refused a request: the user may not see or do this.

    Attributes:
        reason: Why, in a few words.
    """

    reason: str
