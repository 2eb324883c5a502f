"""Workers that declare the type of their args."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar, assert_type

from pydantic import BaseModel
from typing_extensions import TypedDict

from oban import Job, Worker, worker

T = TypeVar("T")


@dataclass
class EmailArgs:
    to: str
    at: datetime | None = None


class ImportArgs(TypedDict):
    path: str


class OrderArgs(BaseModel):
    number: int


class SendEmail(Worker[EmailArgs], queue="mailers"):
    async def process(self, job: Job, args: EmailArgs) -> None:
        assert_type(self.args_of(job), EmailArgs)


class Import(Worker[ImportArgs], executor="process"):
    def process(self, job: Job, *, args: ImportArgs) -> None:
        assert_type(args["path"], str)


class Ship(Worker[OrderArgs]):
    async def process(self, job: Job, args: OrderArgs) -> None:
        return None


class Base(Worker[T], Generic[T]):
    async def process(self, job: Job, args: T) -> None:
        return None


class Concrete(Base[EmailArgs], queue="x"):
    pass


@worker(args=EmailArgs, queue="mailers")
class Decorated:
    async def process(self, job: Job, args: EmailArgs) -> None:
        return None


@worker(args=ImportArgs)
class DecoratedImport:
    async def process(self, job: Job, args: ImportArgs) -> None:
        return None


def any_worker(cls: type[Worker[Any]]) -> str:
    return cls.worker_name


async def enqueue() -> None:
    assert_type(SendEmail.new(EmailArgs("a@b.c"), priority=1), Job)
    assert_type(await SendEmail.enqueue(EmailArgs(to="a@b.c"), schedule_in=5), Job)
    assert_type(Import.new({"path": "/tmp"}), Job)
    await Import.enqueue(ImportArgs(path="x"))
    assert_type(Ship.enqueue_sync(OrderArgs(number=1)), Job)
    await Ship.enqueue(OrderArgs(number=1))
    Concrete.new(EmailArgs("x"))
    assert_type(Ship.args_of(Ship.new(OrderArgs(number=1))).number, int)
    any_worker(SendEmail)
