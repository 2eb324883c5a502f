"""Each line that is marked is an error for every checker, and no other line is."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel
from typing_extensions import TypedDict

from oban import Job, Worker, worker

T = TypeVar("T")


@dataclass
class EmailArgs:
    to: str


class ImportArgs(TypedDict):
    path: str


class OrderArgs(BaseModel):
    number: int


class SendEmail(Worker[EmailArgs]):
    async def process(self, job: Job, args: EmailArgs) -> None:
        args.no_such()  # error


class Import(Worker[ImportArgs], quue="x"):  # error
    pass


class Ship(Worker[OrderArgs]):
    pass


class Base(Worker[T], Generic[T]):
    pass


class Concrete(Base[EmailArgs]):
    pass


class TooMany(Worker[EmailArgs, ImportArgs]):  # error
    pass


async def enqueue(job: Job) -> None:
    SendEmail.new(OrderArgs(number=1))  # error
    SendEmail.new({"to": "a@b.c"})  # error
    SendEmail.new("a@b.c")  # error
    SendEmail.new(EmailArgs(1))  # error
    SendEmail.new(EmailArgs("a"), prioriti=1)  # error
    await SendEmail.enqueue(ImportArgs(path="x"))  # error
    Import.new({"pth": "x"})  # error
    Import.new({"path": 1})  # error
    await Import.enqueue(EmailArgs("x"))  # error
    Ship.new(EmailArgs("x"))  # error
    Ship.enqueue_sync(EmailArgs("x"))  # error
    Concrete.new(OrderArgs(number=1))  # error
    SendEmail.args_of(job).no_such()  # error
    Import.args_of(job)["pth"]  # error


@worker(args=5)  # error
class Wrong:
    def process(self, job: Job, args: EmailArgs) -> None:
        return None


@worker(args=EmailArgs)
class Decorated:
    def process(self, job: Job, args: EmailArgs) -> None:
        return None


# What a class decorator returns mypy does not look at.
Decorated.new(EmailArgs("a"))  # error in mypy
Decorated.new(OrderArgs(number=1))  # error
