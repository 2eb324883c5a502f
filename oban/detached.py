"""Instances of a model that are stored, copied or pickled without a session."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

from sqlalchemy.orm import Mapper
from sqlalchemy.orm.attributes import manager_of_class

from oban import compat


class Detachable:
    """Base of a model with the primary key `id`, whose instances are usually in no session."""

    if TYPE_CHECKING:
        __mapper__: ClassVar[Mapper[Any]]

    @classmethod
    def _blank(cls) -> Self:
        """Create an instance without any values, without calling `__init__`."""
        blank: Self = manager_of_class(cls).new_instance()
        return blank

    @property
    def _is_persistent(self) -> bool:
        """Whether the instance is stored, rather than new."""
        state = self.__dict__.get("_sa_instance_state")
        # Without an ORM state (see `oban.database.fast.late_state`), it has never been in a session.
        return self.__dict__.get("id") is not None if state is None else state.key is not None

    @property
    def _known_id(self) -> int | None:
        """The id, also of an expired or detached instance, without a query; None if it is new."""
        state = self.__dict__.get("_sa_instance_state")
        identity = None if state is None or state.key is None else state.key[1]
        return identity[0] if identity else self.__dict__.get("id")

    def _mark_persistent(self) -> None:
        """Make the instance one that is detached and stored under its id."""
        if (state := self.__dict__.get("_sa_instance_state")) is not None:
            key = self.__mapper__.identity_key_from_primary_key((self.__dict__["id"],))
            compat.set_identity(state, key)

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle and copy take: everything but the run, which belongs to this node."""
        return {key: value for key, value in self.__dict__.items() if key != "_run"}

    def __setstate__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)
        if "_sa_instance_state" not in values:
            manager_of_class(type(self)).setup_instance(self)
            if values.get("id") is not None:
                self._mark_persistent()

    def __copy__(self) -> Self:
        values = self.__getstate__()
        state = values.pop("_sa_instance_state", None)
        copied = object.__new__(type(self))
        copied.__dict__.update(values)
        if state is None:
            copied.__setstate__(values)
        else:
            compat.copy_state(state, copied)
        return copied
