"""S6: values one below, at and one above every limit; and 4,000 jobs at once."""

import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import orjson
import pytest
from sqlalchemy import URL, select

from oban import Cancel, Job, JobState, Oban, Record, Worker, encoding, error_texts, fields, migration
from oban.config import MAX_LIMIT, MAX_NAME
from oban.errors import ConfigError, InvalidJob, ObanError
from tests.support.databases import PostgreSQLFactory
from tests.support.waiting import eventually

#: Seconds of processor time within which a value must be refused, as the best of several tries.
QUICK = 0.01
#: Four batches of an insertion, and four pages of a list that is read page by page.
MANY = 4_000


def nested(levels: int) -> dict[str, Any]:
    """An object with this many levels, itself included."""
    value: Any = {}
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value}
    return value if isinstance(value, dict) else {"a": value[0]}


def document(size: int, filler: str = "x") -> dict[str, Any]:
    """An object whose JSON has this many bytes."""
    empty = len(orjson.dumps({"a": ""}))
    each = len(orjson.dumps(filler)) - 2
    count, rest = divmod(size - empty, each)
    return {"a": filler * count + "x" * rest}


#: A function from a size to the fields of a job, and the limit of the size.
CAPS: dict[str, tuple[Callable[[int], dict[str, Any]], int]] = {
    "bytes of args": (lambda size: {"args": document(size)}, encoding.MAX_BYTES),
    "bytes of args, of three each": (lambda size: {"args": document(size, "€")}, encoding.MAX_BYTES),
    "bytes of args, of six each": (lambda size: {"args": document(size, "\x01")}, encoding.MAX_BYTES),
    "bytes of meta": (lambda size: {"meta": document(size)}, encoding.MAX_BYTES),
    "levels of args": (lambda size: {"args": nested(size)}, encoding.MAX_DEPTH),
    "levels of meta": (lambda size: {"meta": nested(size)}, encoding.MAX_DEPTH),
    "tags": (lambda size: {"tags": [f"{n:04}" for n in range(size)]}, fields.MAX_TAGS),
    "characters of a tag": (lambda size: {"tags": ["\U0001f4a9" * size]}, fields.MAX_TAG),
    "characters of a queue": (lambda size: {"queue": "q" * size}, 128),
    "characters of a worker": (lambda size: {"worker": "\U0001f4a9" * size}, fields.MAX_WORKER),
    "attempts": (lambda size: {"max_attempts": size}, fields.MAX_ATTEMPTS),
    "priority": (lambda size: {"priority": size}, fields.MAX_PRIORITY),
}


@pytest.fixture
async def oban(url: URL) -> AsyncIterator[Oban]:
    async with Oban(url) as client:
        yield client


def refused(kind: type[ObanError], words: list[str], what: Callable[..., Any], **how: Any) -> None:
    """Check that a call raises this error at once, with a short message that contains these words."""
    best = float("inf")
    for _ in range(5):
        since = time.thread_time()
        with pytest.raises(kind) as caught:
            what(**how)
        best = min(best, time.thread_time() - since)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value)) < 500
    assert best < QUICK


@pytest.mark.parametrize("cap", CAPS)
async def test_fields_of_a_job_are_accepted_up_to_their_limit_and_refused_beyond(
    oban: Oban, cap: str
) -> None:
    make, most = CAPS[cap]
    (field,) = make(1) if cap in ("attempts", "priority") else make(20)
    within = [{"worker": "tests.Capped", **make(size)} for size in (most - 1, most)]
    jobs = await oban.enqueue_many([Job(**values) for values in within])
    stored = await oban.list_jobs()
    assert [getattr(job, field) for job in stored] == [values[field] for values in within]
    beyond = {"worker": "tests.Capped", **make(most + 1)}
    refused(InvalidJob, [field], Job, **beyond)
    with pytest.raises(InvalidJob, match=f"^{field}"):
        await oban.update_job(jobs[0], make(most + 1))
    with pytest.raises(InvalidJob, match=f"^{field}"):
        await oban.update_job(jobs[0], lambda job: make(most + 1))
    # Also when it is set as an attribute, or changed in place and only checked when it is stored.
    changed = Job(worker="tests.Capped")
    with pytest.raises(InvalidJob, match=f"^{field}"):
        setattr(changed, field, beyond[field])
    if isinstance(beyond[field], (dict, list)):
        held = getattr(changed, field)
        # The depth of a document is not checked again, as databases can store it.
        spoilt = make(300)[field] if cap.startswith("levels") else beyond[field]
        (held.update if isinstance(held, dict) else held.extend)(spoilt)
        with pytest.raises(InvalidJob, match=f"^{field}"):
            await oban.enqueue(changed)
    await oban.update_many_jobs(jobs, make(most))
    assert {repr(getattr(job, field)) for job in await oban.list_jobs()} == {repr(within[1][field])}


def test_the_helpers_make_documents_of_the_right_size_and_depth() -> None:
    for filler in ("x", "€", "\x01"):
        assert [len(orjson.dumps(document(size, filler))) for size in (100, 101, 102)] == [100, 101, 102]

    def depth(value: Any) -> int:
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)

    assert [depth(nested(levels)) for levels in (1, 2, 99, 100, 101)] == [1, 2, 99, 100, 101]


def test_names_and_limits_of_an_instance_are_limited(url: URL) -> None:
    def made(**options: Any) -> Oban:
        return Oban(url, **options)

    for size in (MAX_NAME - 1, MAX_NAME):
        assert made(name="é" * size, node="é" * size).options.node == "é" * size
    for option in ("name", "node"):
        refused(ConfigError, [option], made, **{option: "n" * (MAX_NAME + 1)})
    for limit in (1, 2, MAX_LIMIT - 1, MAX_LIMIT):
        assert made(queues={"default": limit}).options.queues["default"].limit == limit
    for limit in (0, -1, MAX_LIMIT + 1, 2**63):
        refused(ConfigError, ["limit", "default"], made, queues={"default": limit})
    for size in (127, 128):
        assert list(made(queues={"q" * size: 1}).options.queues) == ["q" * size]
    refused(ConfigError, ["queue"], made, queues={"q" * 129: 1})
    if url.get_backend_name() == "postgresql":
        for size in (1, 39, 40):
            assert made(prefix="p" * size).options.prefix == "p" * size
    for prefix in ("", "p" * 41):
        refused(ConfigError, ["prefix"], made, prefix=prefix)


async def test_the_longest_names_reach_the_database_and_the_channel(
    postgresql_factory: PostgreSQLFactory,
) -> None:
    url = postgresql_factory.create(empty=True)
    prefix, node, queue = "p" * 40, "\U0001f4a9" * MAX_NAME, "q" * 128
    migration.upgrade(url, prefix=prefix)
    options: dict[str, Any] = {"prefix": prefix, "name": node, "node": node, "poll_interval": 300.0}
    async with Oban(url, queues={queue: 1}, **options) as oban:
        await oban.pause_queue(queue, node=node)
        assert [info.paused for info in oban.check_all_queues()] == [True]
        await oban.resume_queue(queue, node=node)
        # Only a notification can wake the queue.
        job = await oban.enqueue(Short.new(queue=queue))
        await eventually(lambda: completed(oban, job), 5)
        assert [(info.node, info.queue) for info in await oban.check_cluster()] == [(node, queue)]
    postgresql_factory.drop(url)


async def completed(oban: Oban, job: Job) -> bool:
    row = await oban.get_job(job.id)
    return row is not None and row.state not in (JobState.AVAILABLE, JobState.EXECUTING)


class Short(Worker, name="tests.Short"):
    async def process(self, job: Job) -> None: ...


class Talks(Worker, name="tests.Talks", max_attempts=1):
    """Ends with this many bytes as an error, a reason or a recorded value."""

    async def process(self, job: Job) -> Any:
        said = job.args["of"] * job.args["size"]
        match job.args["as"]:
            case "reason":
                return Cancel(said)
            case "record":
                return Record(said)
        raise ValueError(said)


async def test_the_outcome_of_a_run_is_shortened_or_refused_at_its_limit(url: URL) -> None:
    async with Oban(url, queues={"default": 5}) as oban:
        jobs = [
            *(
                Talks.new({"as": kind, "of": of, "size": size})
                for kind in ("error", "reason")
                for of in ("x", "€", '"')
                for size in (
                    100,
                    error_texts.MAX_ERROR - 1,
                    error_texts.MAX_ERROR,
                    error_texts.MAX_ERROR + 1,
                    10**6,
                )
            ),
            *(
                Talks.new({"as": "record", "of": "x", "size": encoding.MAX_BYTES - 2 + more})
                for more in (-1, 0, 1)
            ),
        ]
        await oban.enqueue_many(jobs)
        for job in jobs:
            await eventually(partial(completed, oban, job), 30)
        rows = await oban.list_jobs()
    for row in rows[:-3]:
        (entry,) = row.errors
        text, said = entry["error"], row.args["of"] * row.args["size"]
        assert len(orjson.dumps(text)) <= error_texts.MAX_ERROR
        assert row.state is (JobState.DISCARDED if row.args["as"] == "error" else JobState.CANCELLED)
        assert text.endswith(said[-100:])
        whole = row.args["as"] == "reason" and len(orjson.dumps(said)) <= error_texts.MAX_ERROR
        assert (text == said) is whole
    assert [row.state for row in rows[-3:]] == [JobState.COMPLETED] * 2 + [JobState.DISCARDED]
    assert [len(row.meta["return"]) for row in rows[-3:-1]] == [
        encoding.MAX_BYTES - 3,
        encoding.MAX_BYTES - 2,
    ]
    assert f"at most {encoding.MAX_BYTES:,}" in rows[-1].errors[0]["error"]


@pytest.mark.slow
async def test_thousands_of_jobs_are_handled_at_once(oban: Oban) -> None:
    since = time.monotonic()
    jobs = await oban.enqueue_many([Short.new({"n": n}) for n in range(MANY)])
    ids = [job.id for job in jobs]
    every = select(Job).where(Job.worker == Short.worker_name)
    assert [job.args["n"] for job in await oban.list_jobs(every.order_by(Job.id))] == list(range(MANY))
    # Named by ids, by instances, by a statement, and by ids without a job.
    assert await oban.cancel_many_jobs(ids) == MANY
    assert await oban.retry_many_jobs(jobs) == MANY
    assert {job.state for job in jobs} == {JobState.AVAILABLE}
    assert await oban.cancel_many_jobs(every) == MANY
    assert await oban.retry_many_jobs(every) == MANY
    assert len(await oban.update_many_jobs(ids, {"priority": 5})) == MANY
    assert len(await oban.update_many_jobs(every, lambda job: {"meta": {"n": job.args["n"]}})) == MANY
    assert await oban.cancel_many_jobs([-1, 0, 2**63, 2**64, *range(ids[-1] + 1, ids[-1] + MANY)]) == 0
    assert await oban.delete_many_jobs(ids[: MANY // 2]) == MANY // 2
    assert await oban.delete_many_jobs(every) == MANY // 2
    assert await oban.list_jobs() == []
    assert time.monotonic() - since < 40
