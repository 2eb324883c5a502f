from oban import Cancel, Job, JobState, Oban, Worker
from tests.support.waiting import eventually


class Stops(Worker):
    async def process(self, job: Job) -> object:
        return Cancel("enough")


async def test_a_returned_cancel_ends_the_job_with_its_reason(oban: Oban) -> None:
    job = await oban.enqueue(Stops.new({"a": 1}))
    async with Oban(oban.engine, queues={"default": 2}):

        async def ended() -> Job | None:
            row = await oban.get_job(job.id)
            return row if row and row.state is JobState.CANCELLED else None

        row = await eventually(ended)
    assert [entry["error"] for entry in row.errors] == ["enough"]
