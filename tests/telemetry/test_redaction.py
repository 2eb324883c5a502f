"""The option `redact`: its names, the copy of them in meta, and errors that do not show the values."""

import logging
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import URL, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Job, JobState, Oban, Unique, Worker, job, redaction
from oban.database import quoted_rows
from oban.errors import ConfigError, InvalidJob
from oban.testing import assert_enqueued, refute_enqueued
from tests.support.jobs import reaches
from tests.support.options import BRIEF

REDACTED = "[redacted]"


class Charge(Worker, redact=["token", "card.number"]):
    async def process(self, job: Job) -> None: ...


class Refund(Charge, redact="reason", name="refund"):
    pass


def charge(**values: Any) -> Job:
    return Charge.new({"token": "canary-1", **values})


@pytest.mark.parametrize("names", [5, [5], "", [""], "a.", ".a", {"a": 1}, b"token"])
def test_names_that_cannot_be_fields_are_refused(names: Any) -> None:
    with pytest.raises(ConfigError, match="redact must "):

        class Wrong(Worker, redact=names):
            async def process(self, job: Job) -> None: ...


def test_names_are_keys_at_any_depth_and_paths_begin_at_the_root() -> None:
    card = {"number": 4111, "kind": "visa"}
    made = charge(card=card, cards=[card], other={"token": {"a": [1]}, "card": {"number": 5}})

    assert redaction.args(made) == {
        "token": REDACTED,
        "card": {"number": REDACTED, "kind": "visa"},
        # It is the number of the card, wherever it appears.
        "cards": [{"number": REDACTED, "kind": "visa"}],
        "other": {"token": REDACTED, "card": {"number": 5}},
    }
    assert made.args["token"] == "canary-1"


def test_a_path_leads_through_lists() -> None:
    made = Charge.new({"card": [{"number": "4111-1"}, {"number": None}]})

    assert redaction.args(made) == {"card": [{"number": REDACTED}, {"number": REDACTED}]}


def test_a_subclass_adds_names() -> None:
    assert Refund.new().meta == {"redact": ["card.number", "reason", "token"]}


def test_functions_take_the_option() -> None:
    @job(redact="token", name="pay")
    async def pay(token: str) -> None: ...

    assert pay.new("canary-1").meta == {"redact": ["token"]}


def test_jobs_of_other_workers_have_no_names() -> None:
    class Plain(Worker):
        async def process(self, job: Job) -> None: ...

    made = Plain.new({"token": "canary-1"})

    assert made.meta == {}
    assert redaction.secrets(made) is None
    assert redaction.args(made) == {"token": "canary-1"}


async def test_every_way_to_write_a_job_keeps_the_names_in_its_meta(url: URL) -> None:
    names = ["card.number", "token"]
    async with Oban(url) as oban:
        assigned = Job(worker="other", args={"token": "canary-1"})
        assigned.worker = Charge.worker_name
        replaced = charge()
        replaced.meta = {"a": 1}
        jobs = [
            *(charge(), Charge.new(meta={"a": 1}), Job(worker=Charge.worker_name, meta={"a": 1})),
            *(assigned, replaced),
        ]
        await oban.enqueue_many(jobs)
        async with AsyncSession(oban.engine, expire_on_commit=False) as session, session.begin():
            session.add(added := Job(worker=Charge.worker_name))
        by_update = await oban.enqueue(Job(worker="other", meta={"redact": ["token"]}))
        await oban.update_job(by_update.id, {"meta": {"b": 2}})
        await oban.update_job(jobs[0].id, lambda each: {"meta": {"b": 2}})
        moved = await oban.enqueue(Job(worker="other"))
        await oban.update_job(moved.id, {"worker": Charge.worker_name})
        stored = {each.id: each.meta for each in await oban.list_jobs(select(Job))}
    assert stored.pop(by_update.id) == {"b": 2, "redact": ["token"]}
    assert [meta.pop("redact") for meta in stored.values()] == [names] * len(stored)
    assert stored[added.id] == {}
    assert stored[jobs[0].id] == {"b": 2}
    assert stored[replaced.id] == {"a": 1}


async def test_the_names_in_meta_do_not_make_a_job_unique(url: URL) -> None:
    unique = Unique(fields=["worker", "meta"])
    async with Oban(url) as oban:
        first = await oban.enqueue(Job(worker="pay", meta={"a": 1}, unique=unique))
        second = await oban.enqueue(Job(worker="pay", meta={"a": 1, "redact": ["x"]}, unique=unique))
    assert second.id == first.id


@dataclass
class Typed:
    token: str
    amount: int

    def __post_init__(self) -> None:
        if self.amount < 0:
            raise ValueError(f"{self.token} has a negative amount")


class TypedCharge(Worker[Typed], redact="token"):
    async def process(self, job: Job) -> None: ...


def test_an_error_about_typed_args_does_not_show_the_values() -> None:
    with pytest.raises(InvalidJob, match=r"\[redacted\] has a negative amount") as caught:
        TypedCharge.new({"token": "canary-1", "amount": -1})  # type: ignore[arg-type]
    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


async def test_assertions_about_enqueued_jobs_do_not_show_the_values(url: URL) -> None:
    async with Oban(url) as oban:
        await oban.enqueue(charge(pin=3, card={"number": 4111, "kind": "visa"}))
        wanted = {"token": "canary-2", "card": {"kind": "amex"}}
        with pytest.raises(AssertionError) as caught:
            await assert_enqueued(worker=Charge, args=wanted, oban=oban)
        with pytest.raises(AssertionError) as unwanted:
            await refute_enqueued(worker=Charge, args={"token": "canary-1"}, oban=oban)
    for shown in (str(caught.value), str(unwanted.value)):
        assert "canary" not in shown
        assert "4111" not in shown
    assert "args['token'] is redacted, and is not the wanted value" in str(caught.value)
    assert "args['card']['kind'] is 'visa', not 'amex'" in str(caught.value)


async def test_a_row_that_the_database_refuses_is_not_quoted(
    server_url: URL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with Oban(server_url, queues={"default": 1}, **BRIEF) as oban:
        first = await oban.enqueue(charge())
        await reaches(oban, first, JobState.COMPLETED)
        async with oban.engine.begin() as connection:
            await connection.execute(
                text("ALTER TABLE oban_jobs ADD CONSTRAINT mine CHECK (queue <> 'refused')")
            )
        with pytest.raises(IntegrityError) as caught:
            await oban.enqueue(Charge.new({"token": "canary-1"}, queue="refused"))
    error = caught.value
    shown = f"{error} {error!r} {error.orig} {error.__cause__} {error.orig and error.orig.__cause__}"
    assert 'constraint "mine"' in shown
    assert f"DETAIL:  {REDACTED}" in shown
    assert "canary" not in shown + caplog.text


def test_a_document_that_the_database_cannot_read_is_not_quoted() -> None:
    message = (
        'invalid input syntax for type json\nDETAIL:  Token "canary" is invalid.\n'
        'CONTEXT:  JSON data, line 1: {"token": "canary'
    )
    plain, fields = Exception(message), Exception({"M": "invalid", "D": "canary", "W": "canary"})
    for cause in (plain, fields):
        error = DBAPIError("UPDATE oban_jobs SET meta = …", {}, cause, hide_parameters=True)
        quoted_rows.hide(error)
        assert "canary" not in f"{error} {error.orig} {error.args}"
        assert "invalid" in str(error.orig)
