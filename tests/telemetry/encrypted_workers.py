"""Workers with encrypted args, which child processes import."""

from typing import Any

from oban import Job, Record, Worker
from oban.encryption import generate_key

#: The same in each process.
KEY = "c2VjcmV0IGtleSBvZiB0aGUgdGVzdHMsIDMyIGJ5dGU="
OLD_KEY, NEW_KEY = generate_key(), generate_key()


class InChild(Worker, encrypt=KEY, executor="process", max_attempts=1):
    def process(self, job: Job, args: dict[str, Any]) -> Record:
        return Record({"args": args, "job": job.args})


class FailsInChild(Worker, encrypt=KEY, executor="process", max_attempts=1):
    def process(self, job: Job) -> None:
        job.log.info("charging %s", job.args["card"])
        raise ValueError(f"refused {job.args['card']}")
