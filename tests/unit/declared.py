"""Types that workers declare for their args."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NotRequired, TypeVar

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from oban import Job, Worker

T = TypeVar("T")


@dataclass
class Address:
    city: str
    zip: int = 0


class Mail(TypedDict):
    to: str
    at: NotRequired[datetime]


class Model(BaseModel):
    to: str = Field(alias="to_address")
    n: int = 1
    address: Address | None = None


def through_the_database(cls: type[Worker[T]], made: Job) -> T:
    """The args as `process` would get them, after a round trip through JSON."""
    return cls.args_of(Job(worker=made.worker, args=json.loads(json.dumps(made.args))))


def of(declared: Any, **options: Any) -> type[Worker[Any]]:
    """A worker that declares the type of its args, like `class Typed(Worker[declared])`."""

    class Typed(Worker[declared], name="typed"):
        async def process(self, job: Job, args: Any) -> None:
            return None

    return Typed


@dataclass
class Derived(Address):
    street: str = ""
