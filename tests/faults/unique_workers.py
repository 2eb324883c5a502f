"""Unique workers for many connections and processes, and the program of such a process."""

import random
import sys

from oban import Job, SyncOban, Worker

KEYS = 50
INSERTS = 200


class Once(Worker, name="races.Once", unique=True):
    """Has one job for each key, whether or not it has run."""

    async def process(self, job: Job) -> None: ...


class Alone(Worker, name="races.Alone", unique={"states": "incomplete"}):
    """Has one job for each key that has not ended."""

    async def process(self, job: Job) -> None: ...


def insert_into_sqlite(url: str, seed: str) -> None:
    """Insert a job of each key again and again, one by one and in batches, and print how many were new."""
    rng = random.Random(seed)
    new = 0
    with SyncOban(url) as oban:
        left = INSERTS
        while left > 0:
            keys = rng.sample(range(KEYS), min(left, rng.choice([1, 1, 5, 20])))
            jobs = oban.enqueue_many([Once.new({"key": key}) for key in keys])
            new += sum(not job.conflict for job in jobs)
            left -= len(keys)
    print(new)


if __name__ == "__main__":
    insert_into_sqlite(*sys.argv[1:])
