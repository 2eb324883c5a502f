"""The application's own tables. Oban's tables are in the same database."""

from sqlalchemy.orm import Mapped, mapped_column

from .database import Base


class Rate(Base):
    """The value-added tax of a country."""

    __tablename__ = "rates"

    country: Mapped[str] = mapped_column(primary_key=True)
    percent: Mapped[int]


class Invoice(Base):
    """Amounts are in cents. The job `Calculate` sets the gross amount."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(index=True)
    country: Mapped[str]
    net: Mapped[int]
    gross: Mapped[int | None]
    sent: Mapped[bool] = mapped_column(default=False)
