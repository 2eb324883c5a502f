"""The base of all models."""

from typing import TYPE_CHECKING, ClassVar

from sqlalchemy import MetaData, Table
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Base class of Oban's models, whose `metadata` contains only these tables."""

    metadata: ClassVar[MetaData] = MetaData()
    if TYPE_CHECKING:
        __table__: ClassVar[Table]
