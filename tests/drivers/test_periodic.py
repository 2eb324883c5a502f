"""Periodic entries are managed through every driver, in own transactions and in the caller's."""

from datetime import timedelta

import pytest

from oban import Job, Periodic
from oban.errors import PeriodicNotFound
from tests.drivers.callers import Application

ENTRY = Periodic("nightly", "0 3 * * *", Job(worker="app.Report", args={"kind": "ä"}), timezone="Asia/Tokyo")


async def test_each_call_works(application: Application) -> None:
    oban = application.oban
    added = await oban.add_periodic(ENTRY)
    assert [added] == await oban.list_periodic()
    assert (added.args, added.next_at.hour, added.last_tick) == ({"kind": "ä"}, 18, None)
    changed = await oban.update_periodic("nightly", window=timedelta(minutes=5), tags=["x"], args={"n": 1})
    assert (changed.window, changed.tags, changed.args, changed.overridden) == (300.0, ["x"], {"n": 1}, True)
    job = await oban.run_periodic("nightly")
    stored = await oban.get_job(job.id)
    assert (stored.args, stored.tags, stored.meta["cron_name"]) == ({"n": 1}, ["x"], "nightly")
    await oban.pause_periodic("nightly")
    assert [entry.paused for entry in await oban.list_periodic()] == [True]
    await oban.resume_periodic("nightly")
    assert await oban.reset_periodic("nightly") == added
    await oban.delete_periodic("nightly")
    with pytest.raises(PeriodicNotFound):
        await oban.run_periodic("nightly")


async def test_calls_take_part_in_the_callers_transaction(application: Application) -> None:
    oban = application.oban
    for commits in (False, True):
        async with application.session() as transaction:
            session = transaction.own
            await oban.add_periodic(ENTRY, session=session)
            await oban.update_periodic("nightly", session=session, queue="slow")
            await oban.pause_periodic("nightly", session=session)
            job = await oban.run_periodic("nightly", session=session)
            assert (job.queue, len(await oban.list_periodic(session=session))) == ("slow", 1)
            await (transaction.commit() if commits else transaction.rollback())
        assert [entry.queue for entry in await oban.list_periodic()] == ["slow"] * commits
        assert len(await oban.list_jobs()) == commits
