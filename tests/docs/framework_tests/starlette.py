from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

import server
from app import Confirm, Order, create_oban
from test_app import client, oban


def orders(oban):
    with Session(oban.engine) as session:
        return session.scalars(select(Order.confirmed)).all()


def test_sessions_are_returned_and_what_failed_left_nothing(client, oban):
    for prices in ([1], ["free"]) * 10:
        client.post("/orders", json={"email": "ann@example.com", "prices": prices})
    assert client.app_state["oban"].engine.pool.checkedout() == 0
    assert (len(orders(oban)), len(oban.list_jobs())) == (10, 10)


def test_a_job_is_cancelled(client, oban):
    job = oban.enqueue(Confirm.new({"order": 1}))
    assert client.post(f"/jobs/{job.id}/cancel").json() == {"cancelled": True}
    assert oban.get_job(job.id).state == "cancelled"


def test_the_server_runs_jobs_and_closes_its_connections(oban):
    with TestClient(server.app) as client:
        client.post("/orders", json={"email": "ann@example.com", "prices": [1]})
        (job,) = oban.list_jobs()
        assert oban.wait(job, timeout=60).state == "completed"
        pool = client.app_state["oban"].engine.pool
    assert orders(oban) == [True]
    assert (pool.checkedin(), pool.checkedout()) == (0, 0)


def test_the_command_runs_the_queue_on_the_database_of_the_application(oban, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", f"sqlite+aiosqlite:///{oban.engine.url.database}")
    node = create_oban()
    assert (node.engine.url.database, list(node.options.queues)) == (oban.engine.url.database, ["mailers"])
