"""Imports orders from a CSV file; jobs write their invoices.

    python script.py import orders.csv    # add each line's order together with its job
    python script.py withdraw A-2         # delete an order and cancel its jobs
    python script.py run                  # run jobs until none is left

The database is SQLite in orders.db; pass --database-url before the command to use another. You can stop
each command at any time and run it again: no order is imported twice, no invoice written twice.
`oban start --import script --queues invoices` also runs the jobs, and keeps running.
"""

import argparse
import asyncio
import csv
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from oban import Cancel, Job, JobState, Oban, ObanError, SyncOban, Worker, filters, migration

# -- The application's own table and its worker ----------------------------------------------------


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "imported_orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    reference: Mapped[str] = mapped_column(unique=True)
    cents: Mapped[int]
    invoice: Mapped[str | None]


@dataclass(frozen=True)
class OrderArgs:
    order_id: int


# A fixed name, because the module is `__main__` when this file is run and `script` when it is imported.
class WriteInvoice(Worker[OrderArgs], name="script.WriteInvoice", queue="invoices"):
    """Runs in a thread. The invoice is stored together with the job's completion, or not at all."""

    def process(self, job: Job, args: OrderArgs, session: Session) -> Cancel | None:
        order = session.get(Order, args.order_id)
        if order is None:
            return Cancel("the order no longer exists")
        order.invoice = f"Order {order.reference}: {order.cents / 100:,.2f}"
        return None


# -- Enqueue and manage: plain SQLAlchemy, without asyncio -----------------------------------------


def import_orders(engine: Engine, path: Path) -> Iterator[str]:
    """Import each valid line in a transaction of its own; yields one outcome for each line."""
    with path.open(newline="") as file:
        for number, line in enumerate(csv.DictReader(file), 2):
            try:
                with Session(engine) as session, session.begin():
                    order = import_order(session, line)
                yield f"line {number}: imported {order}"
            except IntegrityError:
                yield f"line {number}: {line['reference']} exists already"
            except (KeyError, TypeError, ValueError, ArithmeticError, DataError) as error:
                yield f"line {number}: refused: {error!r}"


def import_order(session: Session, line: Mapping[str, str]) -> str:
    amount = Decimal(line["amount"])
    if not 0 < amount < 1_000_000:
        raise ValueError(f"{amount} is not a valid amount")
    order = Order(reference=line["reference"], cents=int(amount * 100))
    session.add(order)
    session.flush()  # sets order.id
    session.add(WriteInvoice.new(OrderArgs(order.id)))
    return order.reference


def withdraw(engine: Engine, oban: SyncOban, reference: str) -> str:
    """Delete an order and cancel its jobs in one transaction."""
    with Session(engine) as session, session.begin():
        order = session.scalar(select(Order).where(Order.reference == reference))
        if order is None:
            return f"there is no order {reference}"
        jobs = select(Job).where(filters.worker(WriteInvoice), filters.args("order_id") == order.id)
        count = oban.cancel_many_jobs(jobs, session=session)
        session.delete(order)
    return f"withdrew {reference}, cancelled {count} jobs"


# -- Run the jobs until none is left ---------------------------------------------------------------------


async def run(url: str) -> str:
    """Run jobs until all have ended or a signal arrives; then let running jobs finish."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    ended = (JobState.COMPLETED, JobState.CANCELLED, JobState.DISCARDED)
    left = select(Job).where(filters.worker(WriteInvoice), ~filters.state(*ended)).limit(1)
    async with Oban(url, queues={"invoices": 4}) as oban:
        while not stop.is_set() and await oban.list_jobs(left):
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.1)
    return "stopped" if stop.is_set() else "all jobs have ended"


# -- The command -----------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Import orders and write their invoices.")
    parser.add_argument("--database-url", default="sqlite:///orders.db")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("import", help="import a CSV file").add_argument("path", type=Path)
    commands.add_parser("withdraw", help="withdraw an order").add_argument("reference")
    commands.add_parser("run", help="write the invoices")
    options = parser.parse_args()

    engine = create_engine(options.database_url)
    try:
        with engine.begin() as connection:
            migration.upgrade(connection)
            Base.metadata.create_all(connection)
        match options.command:
            case "import":
                for outcome in import_orders(engine, options.path):
                    print(outcome)
            case "withdraw":
                print(withdraw(engine, SyncOban(engine), options.reference))
            case "run":
                print(asyncio.run(run(options.database_url)))
                with Session(engine) as session:
                    written = select(func.count()).where(Order.invoice.is_not(None))
                    print(f"invoices written: {session.scalar(written)}")
    except (ObanError, SQLAlchemyError, OSError) as error:
        print(f"{parser.prog}: {getattr(error, 'orig', None) or error}", file=sys.stderr)
        return 1
    finally:
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
