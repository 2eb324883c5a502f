"""Workers that put the redacted values of their jobs into everything that they report."""

import asyncio
import json
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from oban import Cancel, Discard, Job, Record, Snooze, Worker

ARG = 'canary-arg\'s\n"zebra77" é'
META = "canary-meta-5523"
NUMBER = 881_273_645
REDACTED = ("token", "card.number", "secret")


def make_args(how: str) -> dict[str, Any]:
    return {"how": how, "token": ARG, "card": {"number": NUMBER, "kind": "visa"}, "list": [{"token": [ARG]}]}


def fail(job: Job) -> Any:
    token, secret = job.args["token"], job.meta["secret"]
    number = job.args["card"]["number"]
    match job.args["how"]:
        case "plain":
            raise ValueError(f"{token} {secret} {number}")
        case "repr":
            raise ValueError(f"{job.args!r} {job.meta!r}")
        case "args":
            raise ValueError(job.args, json.dumps(job.args), json.dumps(json.dumps(job.meta)))
        case "key":
            raise KeyError(token)
        case "cause":
            try:
                raise LookupError(token)
            except LookupError as error:
                raise RuntimeError("see the cause") from error
        case "note":
            failure = RuntimeError("see the note")
            failure.add_note(f"{token}{number:,}")
            raise failure
        case "group":
            raise ExceptionGroup(secret, [ValueError(token), ExceptionGroup("inner", [OSError(2, token)])])
        case "long":
            raise ValueError("x" * 7000 + token * 200 + "y" * 7000)
        case "changed":
            job.args.clear()
            raise ValueError(token)
        case "cancel":
            return Cancel(f"refused {token}")
        case "raise cancel":
            raise Cancel(f"refused {token}")
        case "discard":
            raise Discard(f"refused {token}") from ValueError(secret)
        case "snooze":
            return Snooze(3600, meta={"copy": {"token": token}})
        case "report":
            job.progress(1, 2, f"working on {token}")
            job.log.info("sent %s", token, extra={"sent": {"token": token}})
            job.log.debug("sent %r", job.args)
            try:
                raise ValueError(secret)
            except ValueError:
                job.log.exception("failed with %s", number)
            return Record({"token": token, "copy": token})
    raise NotImplementedError(job.args["how"])


HOWS = ["plain", "repr", "args", "key", "cause", "note", "group", "long", "changed", "cancel", "raise cancel"]
HOWS += ["discard", "snooze", "report"]


class Leaks(Worker, redact=REDACTED, max_attempts=2):
    async def process(self, job: Job) -> Any:
        return fail(job)

    def backoff(self, job: Job) -> float:
        raise ValueError(job.args)


class InThread(Worker, redact=REDACTED, max_attempts=2):
    def process(self, job: Job) -> Any:
        return fail(job)


class InProcess(Worker, redact=REDACTED, executor="process", max_attempts=2):
    def process(self, job: Job) -> Any:
        return fail(job)


class TimesOut(Worker, redact=REDACTED, timeout=0.05, max_attempts=1):
    async def process(self, job: Job) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError(job.args) from None


class Queries(Worker, redact=REDACTED, max_attempts=1):
    async def process(self, job: Job, session: AsyncSession) -> None:
        values = {"token": job.args["token"], "number": job.args["card"]["number"]}
        await session.execute(text("SELECT :token, :number FROM missing"), values)
