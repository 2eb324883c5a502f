"""Args of a declared type: `new` stores what parses, refuses the rest, and `process` gets equal args."""

import enum
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, Json, SecretStr, computed_field, field_validator

from oban import Job, Worker
from oban.errors import InvalidJob
from tests.unit.declared import Address, Derived, Mail, Model, of, through_the_database


class Color(enum.Enum):
    RED = "red"


@dataclass
class Everything:
    text: str
    when: datetime
    day: date
    amount: Decimal
    id: UUID
    color: Color
    lasts: timedelta
    raw: bytes
    pair: tuple[int, str]
    names: set[str]
    address: Address
    addresses: list[Address] = field(default_factory=list)
    maybe: int | None = None
    huge: float = 1e300


EVERYTHING = Everything(
    text="ä",
    when=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
    day=date(2026, 1, 2),
    amount=Decimal("1.10"),
    id=UUID(int=7),
    color=Color.RED,
    lasts=timedelta(days=1, microseconds=1),
    raw=b"abc",
    pair=(1, "x"),
    names={"a"},
    address=Address("Rome", 12),
    addresses=[Address("Oslo")],
)


class TestStored:
    def test_a_dataclass_comes_back_equal_with_every_kind_of_value(self) -> None:
        made = of(Everything).new(EVERYTHING)
        assert made.args["when"] == "2026-01-02T03:04:05.678901Z"
        assert (made.args["amount"], made.args["color"], made.args["maybe"]) == ("1.10", "red", None)
        assert through_the_database(of(Everything), made) == EVERYTHING

    def test_a_typed_dict_comes_back_equal(self) -> None:
        mail: Mail = {"to": "a", "at": datetime(2026, 1, 1, tzinfo=UTC)}
        made = of(Mail).new(mail)
        assert made.args == {"to": "a", "at": "2026-01-01T00:00:00Z"}
        assert through_the_database(of(Mail), made) == mail
        assert of(Mail).new({"to": "a"}).args == {"to": "a"}

    def test_a_model_is_stored_under_its_aliases_and_comes_back_equal(self) -> None:
        model = Model(to_address="a", address=Address("Rome"))
        made = of(Model).new(model)
        assert made.args == {"to_address": "a", "n": 1, "address": {"city": "Rome", "zip": 0}}
        assert through_the_database(of(Model), made) == model

    def test_a_dict_that_can_be_parsed_is_stored_as_the_type_would_be(self) -> None:
        assert of(Address).new({"city": "Rome", "zip": "12"}).args == {"city": "Rome", "zip": 12}
        assert of(Address).new({"city": "Rome"}).args == {"city": "Rome", "zip": 0}
        made = of(Everything).new(EVERYTHING)
        assert of(Everything).new(made.args).args == made.args

    def test_computed_fields_and_nested_json_come_back_equal(self) -> None:
        class Box(BaseModel):
            model_config = ConfigDict(extra="forbid")
            side: int
            labels: Json[list[str]]

            @computed_field  # type: ignore[prop-decorator]
            @property
            def area(self) -> int:
                return self.side**2

        class Ship(Worker[Box]):
            async def process(self, job: Job, args: Box) -> None: ...

        box = Box.model_validate({"side": 3, "labels": '["a", "b"]'})
        assert Ship.args_of(Ship.new(box)) == box

    def test_a_strict_model_takes_the_json_that_it_has_stored(self) -> None:
        class Strict(BaseModel):
            model_config = ConfigDict(strict=True)
            at: datetime

        at = datetime(2026, 1, 1, tzinfo=UTC)
        made = of(Strict).new(Strict(at=at))
        assert through_the_database(of(Strict), made) == Strict(at=at)
        assert of(Strict).new(made.args).args == made.args
        with pytest.raises(InvalidJob, match="at: Input should be a valid datetime"):
            of(Strict).new({"at": 1})

    def test_no_args_are_accepted_if_every_field_has_a_default(self) -> None:
        @dataclass
        class Optional:
            n: int = 3

        assert of(Optional).new().args == {"n": 3}
        with pytest.raises(InvalidJob, match="args of typed do not fit Address: city: Field required"):
            of(Address).new()

    def test_the_fields_of_the_job_stay_what_they_are(self) -> None:
        made = of(Address).new(Address("Rome"), queue="media", schedule_in=60)
        assert (made.queue, made.state, made.worker) == ("media", "scheduled", "typed")

    def test_the_type_decides_about_extra_fields(self) -> None:
        class Forbids(BaseModel):
            model_config = ConfigDict(extra="forbid")

        class Allows(BaseModel):
            model_config = ConfigDict(extra="allow")

        assert of(Address).new({"city": "Rome", "x": 1}).args == {"city": "Rome", "zip": 0}
        assert of(Allows).new({"x": 1}).args == {"x": 1}
        with pytest.raises(InvalidJob, match="x: Extra inputs are not permitted"):
            of(Forbids).new({"x": 1})


class Secret(BaseModel):
    key: SecretStr


class Hidden(BaseModel):
    n: int = Field(default=0, exclude=True)


class Renamed(BaseModel):
    n: int = Field(validation_alias="in", serialization_alias="out")


class Growing(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def grow(cls, value: str) -> str:
        return value + "!"


class Clumsy(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def check(cls, value: int) -> int:
        raise KeyError(value)


@dataclass
class Loose:
    anything: Any = None


@dataclass(eq=False)
class Identity:
    n: int = 1


class Ring(BaseModel):
    next: "Ring | None" = None


def ring() -> Ring:
    made = Ring()
    made.next = made
    return made


class TestRefused:
    @pytest.mark.parametrize(
        ("said", "value", "problem"),
        [
            (Address, Address("Rome", "x"), "zip: Input should be a valid integer"),  # type: ignore[arg-type]
            (Address, Address(None), "city: Input should be a valid string"),  # type: ignore[arg-type]
            # A dataclass instance is not parsed, so its values must have the declared types.
            (Address, Address("Rome", "7"), r"not come back.*zip \(str, then int\)"),  # type: ignore[arg-type]
            (Address, Loose(), "Input should be a dictionary or an instance of Address"),
            (Address, [1], "Input should be a dictionary or an instance"),
            (Address, "text", "Input should be a dictionary or an instance"),
            (Address, Derived("Rome", street="Via"), "not come back.*Derived as Address"),
            (Mail, {"to": 1}, "to: Input should be a valid string"),
            (Mail, {"at": datetime.now(UTC)}, "to: Field required"),
            (Model, {"to": "a"}, "to_address: Field required"),
            (
                Model,
                {"to_address": "a", "address": {"zip": []}},
                r"address\.city: Field required; address\.zip",
            ),
            (Secret, Secret(key=SecretStr("x")), r"not come back.*key \(SecretStr, then SecretStr\)"),
            (Hidden, Hidden(n=1), r"not come back.*n \(int, then int\)"),
            (Renamed, {"in": 1}, "in: Field required"),
            (Growing, {"text": "x"}, r"not come back.*text \(str, then str\)"),
            (Clumsy, {"n": 1}, "cannot be stored: KeyError: 1"),
            (Loose, Loose(datetime.now(UTC)), r"not come back.*anything \(datetime, then str\)"),
            (Loose, Loose(object()), "cannot be stored: PydanticSerializationError"),
            (Loose, Loose(float("nan")), r"not come back.*anything \(float, then NoneType\)"),
            (dict[str, float], {"a": float("nan")}, r'args\["a"\] is nan'),
            (Loose, Loose(2**70), "more than 64 bits"),
            (Loose, Loose("\0"), "NUL"),
            (Loose, Loose(b"\xff"), "invalid utf-8"),
            (Identity, Identity(), "not come back.*Identity does not compare by value"),
            (Ring, ring(), "cannot be stored: ValueError: Circular reference"),
            (dict[str, int], {"a": "x"}, "a: Input should be a valid integer"),
        ],
        ids=lambda value: value.__name__ if isinstance(value, type) else "",
    )
    def test_args_that_would_not_come_back_equal_are_refused_with_the_place(
        self, said: Any, value: Any, problem: str
    ) -> None:
        with pytest.raises(InvalidJob, match=problem) as raised:
            of(said).new(value)
        assert raised.value.field.startswith("args")

    def test_an_error_is_short_and_shows_no_values(self) -> None:
        @dataclass
        class Many:
            numbers: list[int]
            secret: int = 0
            by_name: dict[str, int] = field(default_factory=dict)

        value = {"numbers": ["p4ssw0rd"] * 1000, "secret": "p4ssw0rd", "by_name": {"k" * 100_000: "p4ssw0rd"}}
        with pytest.raises(InvalidJob) as raised:
            of(Many).new(value)
        text = str(raised.value)
        assert "numbers[0]: Input should be a valid integer" in text
        assert text.endswith("; and 997 more")
        assert "p4ssw0rd" not in text
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__
        with pytest.raises(InvalidJob) as raised:
            of(Many).new({"numbers": [], "by_name": {"k" * 100_000: "x"}})
        assert len(str(raised.value)) < 400

    def test_stored_args_that_do_not_fit_are_an_error_with_the_place(self) -> None:
        with pytest.raises(InvalidJob, match=r"args of typed do not fit Address: zip: Input should be"):
            of(Address).args_of(Job(worker="typed", args={"city": "Rome", "zip": "x"}))
