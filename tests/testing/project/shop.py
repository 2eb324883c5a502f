"""An application whose tests use the pytest plugin of Oban."""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban import Cancel, Job, Record, Worker, job


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    confirmed: Mapped[bool] = mapped_column(default=False)


class Confirm(Worker, queue="mailers"):
    async def process(self, job: Job, session: AsyncSession) -> object:
        order = await session.get(Order, job.args["order"])
        if order is None:
            return Cancel("there is no such order")
        order.confirmed = True
        return None


class ConfirmSync(Worker, queue="mailers"):
    def process(self, job: Job, session: Session) -> object:
        order = session.get(Order, job.args["order"])
        if order is None:
            return Cancel("there is no such order")
        order.confirmed = True
        return None


class CountOrders(Worker):
    async def process(self, job: Job, session: AsyncSession) -> Record:
        return Record(await session.scalar(select(func.count(Order.id))))


@job(queue="mailers")
async def remind(order: int) -> str:
    if order < 0:
        raise ValueError("there is no such order")
    return f"reminded of order {order}"


async def place(session: AsyncSession, item: str) -> Order:
    """Store an order and enqueue the job that confirms it, in one transaction."""
    order = Order(item=item)
    session.add(order)
    await session.flush()
    await Confirm.enqueue({"order": order.id}, session=session)
    await session.commit()
    return order


def place_sync(session: Session, item: str) -> Order:
    """Do the same without asyncio."""
    order = Order(item=item)
    session.add(order)
    session.flush()
    ConfirmSync.enqueue_sync({"order": order.id}, session=session)
    session.commit()
    return order
