"""Jobs without an ORM state until something asks for it."""

from typing import Any

from sqlalchemy.orm.attributes import manager_of_class
from sqlalchemy.orm.state import InstanceState

from oban.models import Job, identity_key


class LateState:
    """Creates the ORM's `InstanceState` on first access.

    Most jobs finish without needing it. It is a third of the cost of making a `Job`, and most of its work
    for the garbage collector.
    """

    def __get__(self, job: Job | None, owner: type[Job]) -> Any:
        if job is None:
            return self
        values = job.__dict__
        if not values:
            # Before `__init__`, the ORM asks whether there is a state, and creates one itself.
            raise AttributeError("_sa_instance_state")
        created = InstanceState(job, manager_of_class(owner))
        # Another thread may have been first.
        state = values.setdefault("_sa_instance_state", created)
        if state is created and values.get("id") is not None:
            state.key = identity_key(values["id"])
        return state


def install(job_class: type[Job]) -> None:
    """Let jobs be made without a state."""
    # The ORM finds this on the class as long as the instance has no state of its own.
    job_class._sa_instance_state = LateState()
    job_class._blank = classmethod(object.__new__)  # type: ignore[assignment, method-assign]
