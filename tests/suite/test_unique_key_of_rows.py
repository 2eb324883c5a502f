"""The key of a stored job can be computed again from its row, whatever the database made of its JSON."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import URL, select

from oban import Job, SyncOban, Unique, UniqueOptions
from tests.support.json_documents import DOCUMENTS
from tests.support.rows import lasting_url

RULES: tuple[UniqueOptions, ...] = (
    {"fields": ["args", "meta"]},
    {"fields": ["worker", "args"], "keys": ["", "0", "A", "id"]},
)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def client(request: pytest.FixtureRequest) -> Iterator[SyncOban]:
    for url in lasting_url(request):
        with SyncOban(with_sync_driver(url)) as client:
            yield client


def with_sync_driver(url: URL) -> URL:
    backend = url.get_backend_name()
    return url.set(drivername="sqlite" if backend == "sqlite" else "postgresql+psycopg")


@settings(max_examples=12, deadline=None, derandomize=True)
@example([{"n": [3.883221017208034e16, 1e20, -0.0, 2.0**70, 1.5e300]}])
@given(st.lists(DOCUMENTS, min_size=4, max_size=12))
def test_a_row_has_the_key_of_its_own_values(client: SyncOban, documents: list[Any]) -> None:
    jobs = [
        Job(worker="w", args=args, meta={"id": args}, unique=rule) for args in documents for rule in RULES
    ]
    client.enqueue_many(jobs)
    ids = {job.id for job in jobs}
    for stored in client.list_jobs(select(Job).where(Job.id.in_(ids))):
        rule = Unique.from_rule(stored.unique_rule)
        assert rule is not None
        assert rule.key({"worker": "w", "args": stored.args, "meta": stored.meta}) == stored.unique_key


def test_numbers_that_jsonb_writes_in_another_way_keep_their_key(client: SyncOban) -> None:
    numbers = [1e2, 1e20, -0.0, 2.0**70, 1.5e300, 5e-324, 1e-7, 2**64 - 1, -(2**63)]
    first = client.enqueue(Job(worker="numbers", args={"n": numbers}, unique=True))
    stored = client.get_job(first.id)
    assert stored is not None
    assert client.enqueue(Job(worker="numbers", args=stored.args, unique=True)).id == first.id
