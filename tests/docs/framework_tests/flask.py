import asyncio

from sqlalchemy import select
from sqlalchemy.orm import Session

import app as page
import request_session
from app import Confirm, Order
from test_app import app


def orders(oban):
    with Session(oban.engine) as session:
        return session.scalars(select(Order.confirmed)).all()


def test_sessions_are_returned_and_what_failed_left_nothing(app):
    oban, client = app.extensions["oban"], app.test_client()
    for prices in ([1], ["free"]) * 10:
        client.post("/orders", json={"email": "ann@example.com", "prices": prices})
    assert oban.engine.pool.checkedout() == 0
    assert (len(orders(oban)), len(oban.list_jobs())) == (10, 10)


def test_a_job_is_cancelled(app):
    oban = app.extensions["oban"]
    job = oban.enqueue(Confirm.new({"order": 1}))
    assert app.test_client().post(f"/jobs/{job.id}/cancel").json == {"cancelled": True}
    assert oban.get_job(job.id).state == "cancelled"


def test_a_session_of_the_request_is_closed_at_its_end(app):
    oban = app.extensions["oban"]

    def view(commit):
        session = request_session.current_session()
        assert session is request_session.current_session()
        session.add(Confirm.new({"order": commit}))
        session.flush()
        if commit:
            session.commit()
        return ""

    app.add_url_rule("/<int:commit>", view_func=view)
    request_session.init_app(app)
    for commit in (0, 1):
        app.test_client().get(f"/{commit}")
        assert oban.engine.pool.checkedout() == 0
    assert [job.args["order"] for job in oban.list_jobs()] == [1]


def test_the_node_runs_the_job(app, monkeypatch):
    oban = app.extensions["oban"]
    monkeypatch.setenv("DATABASE_URL", str(oban.engine.url))
    app.test_client().post("/orders", json={"email": "ann@example.com", "prices": [1]})
    (job,) = oban.list_jobs()

    async def run():
        async with page.create_oban() as node:
            assert (await node.wait(job.id, timeout=60)).state == "completed"

    asyncio.run(run())
    assert orders(oban) == [True]
