import pytest
from shop import ConfirmSync, Order, place_sync
from sqlalchemy.orm import Session

from oban import SyncOban, testing


def test_an_order_is_confirmed_by_a_job(sync_oban: SyncOban, sync_oban_session: Session) -> None:
    order = place_sync(sync_oban_session, "lamp")
    assert testing.drain_queue("mailers", oban=sync_oban)["completed"] == 1
    sync_oban_session.refresh(order)
    assert order.confirmed


@pytest.mark.parametrize("run", [1, 2])
def test_each_test_begins_with_nothing(sync_oban: SyncOban, sync_oban_session: Session, run: int) -> None:
    assert sync_oban.list_jobs() == []
    assert sync_oban_session.get(Order, 1) is None
    place_sync(sync_oban_session, "lamp")
    assert len(sync_oban.list_jobs()) == 1


@pytest.mark.oban(mode="inline")
def test_jobs_run_at_once(sync_oban: SyncOban, sync_oban_session: Session) -> None:
    order = place_sync(sync_oban_session, "lamp")
    sync_oban_session.refresh(order)
    assert order.confirmed
    assert ConfirmSync.enqueue_sync({"order": 0}).state == "cancelled"
