"""The import of an order and its job, in a transaction that Oban's plugin for pytest rolls back."""

import pytest
from script import Base, Order, OrderArgs, WriteInvoice, import_order
from sqlalchemy import MetaData, select
from sqlalchemy.orm import Session

from oban import Cancel, SyncOban
from oban.testing import assert_enqueued, drain_queue, process_job, refute_enqueued


@pytest.fixture(scope="session")
def oban_metadata() -> MetaData:
    return Base.metadata


def test_an_imported_order_gets_its_invoice(sync_oban: SyncOban, sync_oban_session: Session) -> None:
    assert import_order(sync_oban_session, {"reference": "A-1", "amount": "1234.50"}) == "A-1"
    sync_oban_session.commit()
    order = sync_oban_session.scalars(select(Order)).one()
    assert_enqueued(oban=sync_oban, worker=WriteInvoice, queue="invoices", args={"order_id": order.id})
    assert drain_queue("invoices", oban=sync_oban)["completed"] == 1
    sync_oban_session.refresh(order)
    assert order.invoice == "Order A-1: 1,234.50"


def test_an_order_with_a_bad_amount_enqueues_nothing(sync_oban: SyncOban, sync_oban_session: Session) -> None:
    with pytest.raises(ValueError, match="-1 is not a valid amount"):
        import_order(sync_oban_session, {"reference": "A-1", "amount": "-1"})
    refute_enqueued(oban=sync_oban)


def test_the_job_of_a_withdrawn_order_is_cancelled(sync_oban: SyncOban) -> None:
    result = process_job(WriteInvoice.new(OrderArgs(404)), oban=sync_oban)
    assert result == Cancel("the order no longer exists")
