"""Encrypted args: ciphertext in the producer and in the table, plain only inside of the worker."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import flag_modified

from oban import Job, JobState, Oban, Periodic, Record, Worker, current_job, filters, job, worker
from oban.encryption import generate_key, key_id
from oban.errors import ConfigError, DecryptionFailed, InvalidJob
from oban.registry import registry
from oban.testing import all_enqueued, assert_enqueued, drain_queue, mode, process_job, refute_enqueued
from tests.support.jobs import reaches, row_of
from tests.support.options import BRIEF, FAST_POLLING
from tests.support.waiting import eventually
from tests.telemetry.encrypted_workers import KEY, NEW_KEY, OLD_KEY, InChild

pytestmark = pytest.mark.usefixtures("own_registry")

SECRET = "4111-1111-1111-1111"
ARGS = {"card": SECRET, "amount": 5}


class Seen:
    """What a worker has seen."""

    def __init__(self) -> None:
        self.args: list[Any] = []


@dataclass
class Charge:
    card: str
    amount: int


def define(seen: Seen | None = None, encrypt: Any = KEY, name: str = "Pays", **options: Any) -> type[Worker]:
    """Define a worker that encrypts its args, and notes those that it sees."""

    class Pays(Worker, encrypt=encrypt, name=name, **options):
        async def process(self, job: Job) -> None:
            if seen is not None:
                seen.args.append(job.args)

    return Pays


def token_of(args: dict[str, Any]) -> str:
    """The token in an envelope."""
    assert list(args) == ["encrypted"]
    token = args["encrypted"]
    assert token.startswith("gAAAA")
    assert SECRET not in token
    return str(token)


async def stored_text(oban: Oban) -> str:
    """All columns of all jobs as the database has them."""
    async with oban.engine.connect() as connection:
        rows = await connection.execute(text("SELECT * FROM oban_jobs"))
        return repr(rows.all())


# -- the option ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("short", "encrypt: the key is not a Fernet key"),
        ([KEY, "x" * 44], "encrypt: key 2 of 2 is not a Fernet key"),
        ([KEY, 7], "encrypt: key 2 of 2 must be a string or bytes, not int"),
        ([], "encrypt needs at least one key"),
        (None, "encrypt must be a key, a list of keys, or a function that returns these, not NoneType"),
    ],
)
def test_wrong_keys_are_refused_at_the_definition_without_being_shown(option: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match="Pays: encrypt") as caught:
        define(encrypt=option)
    assert problem in str(caught.value)
    assert "short" not in str(caught.value)
    assert "x" * 44 not in str(caught.value)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oban.encryption.find_spec", lambda _: None)
    with pytest.raises(
        ConfigError, match=r"Pays: encrypt needs the package cryptography: pip install 'oban-sqlalchemy\["
    ):
        define()


def test_a_function_is_called_once_when_the_key_is_first_needed() -> None:
    calls: list[int] = []

    def find() -> list[bytes]:
        calls.append(1)
        return [KEY.encode()]

    pays = define(encrypt=find, cron="@daily", args={"amount": 1})
    assert calls == []
    for _ in range(2):
        assert pays.args_of(pays.new(ARGS)) == ARGS
    assert calls == [1]


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("wrong", "the key is not a Fernet key"),
        (None, "must be a key"),
        (KeyError(SECRET), "raised KeyError$"),
        (KeyError("CHARGE_KEY"), "raised KeyError: 'CHARGE_KEY'$"),
    ],
)
def test_a_function_without_a_key_is_an_error_that_names_the_worker(returned: Any, problem: str) -> None:
    def find() -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    with pytest.raises(ConfigError, match=f"^Pays: encrypt.*{problem}") as caught:
        define(encrypt=find).new(ARGS)
    assert SECRET not in str(caught.value)


def test_subclasses_inherit_the_key() -> None:
    class Refunds(define()):  # type: ignore[misc]
        pass

    assert Refunds.args_of(Refunds.new(ARGS)) == ARGS
    token_of(Refunds.new(ARGS).args)


def test_a_generated_key_can_be_used() -> None:
    key = generate_key()
    assert len(key) == 44
    assert key_id(key) == key_id(key.encode()) != key_id(KEY)
    pays = define(encrypt=key)
    assert pays.args_of(pays.new(ARGS)) == ARGS


# -- the producer --------------------------------------------------------------------------------


def make_with_new(pays: type[Worker]) -> Job:
    return pays.new(ARGS)


def make_with_overrides(pays: type[Worker]) -> Job:
    return pays.new(ARGS, priority=2)


def make_by_name(pays: type[Worker]) -> Job:
    return Job(worker="Pays", args=ARGS)


def make_by_assignment(pays: type[Worker]) -> Job:
    made = pays.new()
    made.args = ARGS
    return made


def make_again(pays: type[Worker]) -> Job:
    return pays.new(pays.new(ARGS).args)


@pytest.mark.parametrize(
    "make", [make_with_new, make_with_overrides, make_by_name, make_by_assignment, make_again]
)
def test_a_new_job_has_ciphertext(make: Callable[[type[Worker]], Job]) -> None:
    pays = define()
    made = make(pays)
    token_of(made.args)
    assert pays.args_of(made) == ARGS
    assert SECRET not in repr(vars(made))


def test_args_that_were_encrypted_cannot_be_changed_in_place() -> None:
    made = define().new(ARGS)
    made.args["more"] = 1
    with pytest.raises(InvalidJob, match="args of Pays are encrypted: assign new args instead"):
        pickle.dumps(made)


def test_args_can_be_too_large_once_they_are_encrypted() -> None:
    with pytest.raises(InvalidJob, match=r"args are 4,\d\d\d,\d\d\d bytes when they are encrypted; at most"):
        define().new({"text": "x" * 3_400_000})


def test_functions_and_decorated_classes_encrypt_as_well() -> None:
    @job(encrypt=KEY)
    def pay(card: str) -> None:
        pass

    @worker(encrypt=KEY, args=Charge)
    class Charges:
        def process(self, job: Job, args: Charge) -> None:
            pass

    token_of(pay.new(SECRET).args)
    assert pay.worker.args_of(pay.new(SECRET)) == {"card": SECRET}
    made = Charges.new(Charge(SECRET, 5))  # type: ignore[attr-defined]
    token_of(made.args)
    assert Charges.args_of(made) == Charge(SECRET, 5)  # type: ignore[attr-defined]


async def test_the_table_never_has_plain_args(oban: Oban) -> None:
    pays = define(unique={"keys": ["card"], "states": "all"})
    await oban.enqueue(pays.new(ARGS))
    await oban.enqueue_many([pays.new({**ARGS, "card": f"{SECRET}-{n}"}) for n in range(2)])
    await oban.enqueue_stream(pays.new({"card": f"{SECRET}-streamed-{n}"}) for n in range(1))
    async with AsyncSession(oban.engine) as session, session.begin():
        session.add(Job(worker="Pays", args={"card": f"{SECRET}-added"}))
        await oban.enqueue(pays.new({"card": f"{SECRET}-joined"}), session=session)
        rows = [{"worker": "Pays", "args": {"card": f"{SECRET}-row-{n}"}} for n in range(2)]
        await session.execute(insert(Job), rows)
        await session.execute(
            insert(Job).values([{**each, "args": {"card": f"{SECRET}-value"}} for each in rows[:1]])
        )
        await session.run_sync(
            lambda sync: sync.bulk_insert_mappings(
                Job, [{"worker": "Pays", "args": {"card": f"{SECRET}-mapping"}}]
            )
        )
    jobs = await oban.list_jobs()
    assert len(jobs) == 10
    assert SECRET not in await stored_text(oban)
    assert all(pays.args_of(each)["card"].startswith(SECRET) for each in jobs)
    # Each form has the same keyed hash.
    assert (await oban.enqueue(pays.new({"card": f"{SECRET}-row-1"}))).conflict
    assert (await oban.enqueue(pays.new({"card": f"{SECRET}-added"}))).conflict
    assert (await oban.enqueue(pays.new({"card": f"{SECRET}-mapping"}))).conflict


async def test_jobs_that_were_made_before_their_worker_was_defined_are_encrypted(oban: Oban) -> None:
    first, second = (Job(worker="Pays", args=ARGS) for _ in range(2))
    assert first.args == ARGS
    pays = define()
    await oban.enqueue(first)
    token_of(first.args)
    async with AsyncSession(oban.engine) as session, session.begin():
        session.add(second)
    assert SECRET not in await stored_text(oban)
    assert [pays.args_of(each) for each in await oban.list_jobs()] == [ARGS, ARGS]


# -- the worker ----------------------------------------------------------------------------------


async def test_only_the_worker_sees_plain_args(oban: Oban) -> None:
    seen: list[Any] = []

    def around(job: Job, process: Callable[[Job], Any]) -> Any:
        seen.append(("middleware", job.args))
        return process(job)

    class Pays(Worker, encrypt=KEY, middleware=[around], max_attempts=2):
        def process(self, job: Job, args: dict[str, Any]) -> None:
            current = current_job()
            assert current is not None
            seen.append(("process", job.args, args, current.args, Pays.args_of(job)))
            raise ValueError("refused")

        def timeout(self, job: Job) -> float:
            seen.append(("timeout", job.args))
            return 10.0

        def backoff(self, job: Job) -> float:
            seen.append(("backoff", job.args))
            return 600.0

    async with Oban(oban.engine, queues={"default": 1}, **BRIEF) as node:
        failed = await reaches(node, await node.enqueue(Pays.new(ARGS)), JobState.RETRYABLE)
    assert [name for name, *_ in seen] == ["timeout", "middleware", "process", "backoff"]
    assert all(args == ARGS for _, *found in seen for args in found)
    token_of(failed.args)


async def test_typed_args_and_functions_get_plain_args(oban: Oban) -> None:
    class Charges(Worker[Charge], encrypt=KEY):
        async def process(self, job: Job, args: Charge) -> Record:
            return Record([args.card, args.amount])

    @job(encrypt=KEY)
    async def pay(card: str, amount: int = 1) -> Record:
        return Record([card, amount])

    await oban.enqueue_many([Charges.new(Charge(SECRET, 5)), pay.new(SECRET)])
    await drain_queue(oban=oban)
    assert sorted(each.recorded[1] for each in await oban.list_jobs()) == [1, 5]
    assert {each.recorded[0] for each in await oban.list_jobs()} == {SECRET}


async def test_a_child_process_decrypts_the_args(oban: Oban) -> None:
    async with Oban(oban.engine, queues={"default": 1}, **BRIEF) as node:
        ended = await reaches(
            node, await node.enqueue(InChild.new(ARGS)), JobState.COMPLETED, JobState.DISCARDED
        )
    assert ended.recorded == {"args": ARGS, "job": ARGS}, ended.errors
    token_of(ended.args)


async def test_jobs_of_before_the_option_run_as_they_are(oban: Oban) -> None:
    seen = Seen()
    await oban.enqueue(Job(worker="Pays", args=ARGS))
    define(seen)
    await drain_queue(oban=oban)
    assert seen.args == [ARGS]


@pytest.mark.parametrize("encrypt", [NEW_KEY, lambda: None], ids=["wrong", "missing"])
async def test_a_wrong_or_missing_key_is_a_failed_attempt(oban: Oban, encrypt: Any) -> None:
    enqueued = await oban.enqueue(define(max_attempts=2).new(ARGS))
    seen = Seen()
    define(seen, encrypt=encrypt)
    await drain_queue(oban=oban, with_safety=True, with_scheduled=False)
    failed = await row_of(oban, enqueued)
    assert (failed.state, failed.attempt, seen.args) == (JobState.RETRYABLE, 1, [])
    (error,) = failed.errors
    if encrypt is NEW_KEY:
        assert error["error"].startswith("DecryptionFailed: args of Pays cannot be decrypted: they were enc")
        assert error["error"].endswith(f"it has the key {key_id(NEW_KEY)}")
        assert NEW_KEY not in error["error"]
    else:
        assert error["error"].startswith("ConfigError: Pays: encrypt must be a key")
    define(seen, encrypt=[NEW_KEY, KEY])
    await oban.retry_job(failed)
    await drain_queue(oban=oban)
    assert seen.args == [ARGS]


async def test_the_job_of_a_worker_that_is_stored_again_is_encrypted(oban: Oban) -> None:
    seen: list[Any] = []

    class Pays(Worker, encrypt=KEY):
        async def process(self, job: Job, session: AsyncSession) -> None:
            before = (await session.execute(select(Job.args))).scalar_one()
            merged = await session.merge(job)
            merged.meta = {"merged": True}
            await session.flush()
            # The same args keep their envelope.
            assert merged.args == before
            session.add(Job(worker=job.worker, queue="later", args=job.args))
            merged.args = {**job.args, "amount": 6}
            await session.flush()
            seen.extend([job.args, pickle.loads(pickle.dumps(job)).args, copy.copy(job).args])
            seen.append(copy.deepcopy(job).args)

    await oban.enqueue(Pays.new(ARGS))
    async with Oban(oban.engine, queues={"default": 1}, **FAST_POLLING) as node:
        first = await reaches(node, 1, JobState.COMPLETED, JobState.RETRYABLE)
    assert first.state == JobState.COMPLETED, first.errors
    assert seen[0] == ARGS
    for args in seen[1:]:
        token_of(args)
    assert Pays.args_of(first) == {**ARGS, "amount": 6}
    assert first.meta["merged"] is True
    assert SECRET not in await stored_text(oban)


async def test_a_worker_that_assigns_its_args_still_sees_them(oban: Oban) -> None:
    class Pays(Worker, encrypt=KEY):
        async def process(self, job: Job, session: AsyncSession) -> Record:
            job.args = {**job.args, "amount": 6}
            shown = dict(job.args)
            session.add(job)
            await session.flush()
            return Record(shown["amount"])

    enqueued = await oban.enqueue(Pays.new(ARGS))
    async with Oban(oban.engine, queues={"default": 1}, **FAST_POLLING) as node:
        ended = await reaches(node, enqueued, JobState.COMPLETED, JobState.RETRYABLE)
    assert ended.recorded == 6, ended.errors
    assert Pays.args_of(ended) == {**ARGS, "amount": 6}
    token_of(ended.args)


async def test_a_worker_that_updates_its_job_still_sees_its_args(oban: Oban) -> None:
    class Pays(Worker, encrypt=KEY):
        async def process(self, job: Job) -> Record:
            await oban.update_job(job, {"tags": ["paid"]})
            await oban.retry_job(job)
            return Record([job.tags, job.args])

    enqueued = await oban.enqueue(Pays.new(ARGS))
    async with Oban(oban.engine, queues={"default": 1}, **FAST_POLLING) as node:
        ended = await reaches(node, enqueued, JobState.COMPLETED, JobState.RETRYABLE)
    assert ended.recorded == [["paid"], ARGS], ended.errors
    token_of(ended.args)


# -- changes -------------------------------------------------------------------------------------


async def test_updates_are_encrypted(oban: Oban) -> None:
    pays = define()
    enqueued = await oban.enqueue(pays.new(ARGS))
    updated = await oban.update_job(enqueued, {"args": {"card": SECRET, "amount": 6}})
    token_of(updated.args)
    assert pays.args_of(updated)["amount"] == 6
    updated = await oban.update_job(enqueued, lambda job: {"args": {**pays.args_of(job), "amount": 7}})
    assert pays.args_of(updated)["amount"] == 7
    token_of((await row_of(oban, enqueued)).args)
    with pytest.raises(InvalidJob, match="args of Pays are encrypted: assign new args"):
        await oban.update_job(enqueued, lambda job: {"args": {**job.args, "amount": 7}})


async def test_a_session_encrypts_what_is_assigned(oban: Oban) -> None:
    pays = define()
    enqueued = await oban.enqueue(pays.new(ARGS))
    async with AsyncSession(oban.engine) as session, session.begin():
        loaded = await session.get_one(Job, enqueued.id)
        loaded.args = {**ARGS, "amount": 6}
        token_of(loaded.args)
    async with AsyncSession(oban.engine) as session, session.begin():
        loaded = await session.get_one(Job, enqueued.id)
        assert pays.args_of(loaded) == {**ARGS, "amount": 6}
        loaded.args["amount"] = 7
        flag_modified(loaded, "args")
        with pytest.raises(InvalidJob, match="args of Pays are encrypted: assign new args"):
            await session.flush()


async def test_a_job_that_gets_another_worker_is_encrypted_for_that(oban: Oban) -> None:
    pays, refunds = define(), define(encrypt=NEW_KEY, name="Refunds")
    define_plain("Plain")
    enqueued = await oban.enqueue(pays.new(ARGS))
    updated = await oban.update_job(enqueued, {"worker": "Refunds"})
    assert refunds.args_of(updated) == ARGS
    with pytest.raises(InvalidJob, match=r"worker Plain cannot decrypt the args of job \d+: pass new args"):
        await oban.update_job(enqueued, {"worker": "Plain"})
    updated = await oban.update_job(enqueued, {"worker": "Plain", "args": {"id": 1}})
    assert updated.args == {"id": 1}
    async with AsyncSession(oban.engine) as session, session.begin():
        loaded = await session.get_one(Job, enqueued.id)
        loaded.worker = "Pays"
    changed = await row_of(oban, enqueued)
    token_of(changed.args)
    assert pays.args_of(changed) == {"id": 1}


def define_plain(name: str) -> type[Worker]:
    class Plain(Worker, name=name):
        async def process(self, job: Job) -> None:
            return None

    return Plain


@pytest.mark.parametrize("knows_another", [True, False])
async def test_a_program_without_the_worker_stores_no_plain_args(
    oban: Oban, knows_another: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueued = await oban.enqueue(define(unique=True).new(ARGS))
    registry.remove("Pays")
    # That of the command line, for instance, has no worker that encrypts.
    monkeypatch.setattr("oban.encryption.is_used", knows_another)
    with pytest.raises(InvalidJob, match=r"args of job \d+ are encrypted: import Pays, which encrypts"):
        await oban.update_job(enqueued, {"args": ARGS})
    async with AsyncSession(oban.engine) as session:
        loaded = await session.get_one(Job, enqueued.id)
        loaded.args = ARGS
        with pytest.raises(InvalidJob, match=r"^args are encrypted: import Pays, which encrypts"):
            await session.commit()
    moved = await oban.update_job(enqueued, {"queue": "other"})
    assert moved.unique_key == enqueued.unique_key


async def test_a_replaced_duplicate_gets_encrypted_args(oban: Oban) -> None:
    pays = define(unique={"keys": ["card"]}, replace=["args"])
    first = await oban.enqueue(pays.new(ARGS))
    second = await oban.enqueue(pays.new({**ARGS, "amount": 6}))
    assert (second.id, second.conflict) == (first.id, True)
    stored = await row_of(oban, first)
    token_of(stored.args)
    assert pays.args_of(stored) == {**ARGS, "amount": 6}


async def test_unique_jobs_are_compared_by_a_keyed_hash(oban: Oban) -> None:
    pays = define(unique=True)
    first = await oban.enqueue(pays.new(ARGS))
    assert (await oban.enqueue(pays.new(ARGS))).conflict
    assert not (await oban.enqueue(pays.new({**ARGS, "amount": 6}))).conflict
    plain = Job(worker="Other", args=ARGS, unique=True)
    with_other_key = define(unique=True, encrypt=NEW_KEY)
    other = await oban.enqueue(with_other_key.new(ARGS))
    await oban.enqueue(plain)
    assert len({first.unique_key, other.unique_key, plain.unique_key}) == 3


async def test_waiting_jobs_are_encrypted_again_with_the_newest_key(oban: Oban) -> None:
    pays = define(encrypt=OLD_KEY, unique=True)
    enqueued = await oban.enqueue(pays.new(ARGS))
    pays = define(encrypt=[NEW_KEY, OLD_KEY], unique=True)
    await oban.update_many_jobs(
        select(Job).where(filters.worker(pays)), lambda job: {"args": pays.args_of(job)}
    )
    seen = Seen()
    pays = define(seen, encrypt=NEW_KEY, unique=True)
    duplicate = await oban.enqueue(pays.new(ARGS))
    assert (duplicate.id, duplicate.conflict) == (enqueued.id, True)
    await drain_queue(oban=oban)
    assert seen.args == [ARGS]


# -- periodic jobs -------------------------------------------------------------------------------


async def test_entries_do_not_change_when_they_are_declared_again(oban: Oban) -> None:
    pays = define(cron="@daily", args=ARGS)
    texts = []
    for _ in range(2):
        named = Periodic("named", "@hourly", job=pays.new(ARGS))
        async with Oban(oban.engine, queues={"default": 1}, periodic=[named], **BRIEF) as node:
            await eventually(node.list_periodic)
            statement = text("SELECT entry, declared, updated_at FROM oban_periodic ORDER BY entry")
            async with node.engine.connect() as connection:
                texts.append([tuple(row) for row in await connection.execute(statement)])
    assert texts[0] == texts[1]
    assert len(texts[0]) == 2
    assert SECRET not in repr(texts)
    (entry, _) = await oban.list_periodic()
    token_of(entry.args)


async def test_a_periodic_job_is_encrypted_and_so_are_changes(oban: Oban) -> None:
    seen = Seen()
    define(seen, cron="@daily", args=ARGS, cron_name="pay")
    async with Oban(oban.engine, queues={"default": 1}, **FAST_POLLING) as node:
        await reaches(node, await node.run_periodic("pay"), JobState.COMPLETED)
        changed = await node.update_periodic("pay", args={**ARGS, "amount": 6})
        token_of(changed.args)
        ran = await reaches(node, await node.run_periodic("pay"), JobState.COMPLETED)
        token_of(ran.args)
        assert seen.args == [ARGS, {**ARGS, "amount": 6}]
        # As in a program that does not know the worker.
        registry.remove("Pays")
        with pytest.raises(InvalidJob, match="args of the entry pay are encrypted: import Pays, which"):
            await node.update_periodic("pay", args=ARGS)


# -- oban.testing --------------------------------------------------------------------------------


async def test_the_helpers_for_tests_see_plain_args(oban: Oban) -> None:
    pays = define()
    await oban.enqueue_many(
        [pays.new(ARGS), pays.new({"card": "x"}), Job(worker="Other", args={"card": "x"})]
    )
    (found,) = await all_enqueued(args={"card": SECRET}, oban=oban)
    assert found.args == ARGS
    assert len(await all_enqueued(args={"card": "x"}, oban=oban)) == 2
    await assert_enqueued(worker=pays, args={"amount": 5}, oban=oban)
    await refute_enqueued(worker=pays, args={"amount": 6}, oban=oban)
    with pytest.raises(AssertionError, match=SECRET):
        await assert_enqueued(worker=pays, args={"amount": 6}, oban=oban)


async def test_jobs_that_run_as_soon_as_they_are_enqueued_are_decrypted(oban: Oban) -> None:
    seen = Seen()
    with mode("inline"):
        await oban.enqueue(define(seen).new(ARGS))
    assert seen.args == [ARGS]


async def test_process_job_decrypts_the_args() -> None:
    seen = Seen()
    await process_job(define(seen).new(ARGS))
    assert seen.args == [ARGS]


def test_args_of_a_foreign_envelope_are_an_error() -> None:
    made = define(encrypt=OLD_KEY).new(ARGS)
    with pytest.raises(DecryptionFailed, match=f"has the keys {key_id(NEW_KEY)}, {key_id(KEY)}$"):
        define(encrypt=[NEW_KEY, KEY]).args_of(made)
    with pytest.raises(InvalidJob, match="args of Pays cannot be decrypted"):
        define().new(made.args)
