"""The models of an application whose tables are next to Oban's."""

from typing import Any, cast

from sqlalchemy import Column, ForeignKey, Table, insert, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.schema import CreateTable

from oban import Job


class Base(DeclarativeBase):
    """The application's base class, with its own metadata and registry."""


order_jobs = Table(
    "order_jobs",
    Base.metadata,
    Column("order_id", ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True),
    Column("job_id", ForeignKey(Job.id, ondelete="CASCADE"), primary_key=True),
)


class Order(Base):
    """An order that several jobs can refer to."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[int]
    jobs: Mapped[list[Job]] = relationship(Job, secondary=order_jobs, order_by=Job.id, passive_deletes=True)


class Export(Base):
    """A row that refers to the one job that works on it."""

    __tablename__ = "exports"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey(Job.id, ondelete="SET NULL"))
    job: Mapped[Job | None] = relationship(Job)


async def create(engine: AsyncEngine, jobs: str = "oban_jobs") -> None:
    """Create the tables if they are missing, and empty them; their foreign keys refer to `jobs`."""
    async with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            statement = str(CreateTable(table, if_not_exists=True).compile(engine.sync_engine))
            await connection.execute(text(statement.replace("REFERENCES oban_jobs", f"REFERENCES {jobs}")))
        for table in reversed(Base.metadata.sorted_tables):
            await connection.execute(table.delete())


async def link(engine: AsyncEngine, orders: list[dict[str, Any]], links: list[tuple[int, int]]) -> None:
    """Insert orders, and link jobs to them."""
    async with engine.begin() as connection:
        await connection.execute(insert(cast(Table, Order.__table__)), orders)
        pairs = [{"order_id": order, "job_id": job} for order, job in links]
        if pairs:
            await connection.execute(insert(order_jobs), pairs)
