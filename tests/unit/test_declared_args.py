"""A worker declares the type of its args; a type that cannot work is refused where the worker is defined."""

import enum
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NewType, TypeVar

import pytest
from pydantic import BaseModel
from typing_extensions import TypeAliasType

from oban import Job, Worker, worker
from oban.errors import ConfigError, InvalidJob
from tests.unit.declared import Address, Derived, Mail, Model, of, through_the_database

T = TypeVar("T")


class TestDeclared:
    def test_subclasses_inherit_the_type_and_may_declare_another(self) -> None:
        class First(Worker[Address]):
            async def process(self, job: Job, args: Any) -> None: ...

        class Second(First, queue="media"):
            pass

        assert Second.new(Address("Rome")).args == {"city": "Rome", "zip": 0}
        with pytest.raises(InvalidJob, match="city"):
            Second.new({})  # type: ignore[arg-type]

    def test_a_generic_base_leaves_the_type_to_its_subclasses(self) -> None:
        class Base(Worker[T], Generic[T]):
            async def process(self, job: Job, args: T) -> None: ...

        class Concrete(Base[Address]):
            pass

        class Between(Base[T]):
            pass

        class Last(Between[Address]):
            pass

        class Untyped(Base):  # type: ignore[type-arg]
            pass

        for cls in (Concrete, Last):
            with pytest.raises(InvalidJob, match="city"):
                cls.new({})  # type: ignore[arg-type]
        assert Untyped.new({"any": 1}).args == {"any": 1}
        assert Base.new({"any": 1}).args == {"any": 1}

    def test_a_generic_alias_decides_about_generic_args(self) -> None:
        @dataclass
        class Page(Generic[T]):
            items: list[T]

        class Pages(Worker[Page[T]], Generic[T]):
            async def process(self, job: Job) -> None: ...

        class Numbers(Pages[int]):
            pass

        assert Numbers.new(Page([1])).args == {"items": [1]}
        either: list[Any] = [Numbers, of(Page[int])]
        for cls in either:
            with pytest.raises(InvalidJob, match=r"items\[0\]"):
                cls.new({"items": ["x"]})

    @pytest.mark.parametrize(
        "said",
        [
            NewType("Special", Address),
            Annotated[Address, "x"],
            Address | Model,
            TypeAliasType("Named", Address | Model),
            "Address",
        ],
        ids=["NewType", "Annotated", "union", "named union", "forward reference"],
    )
    def test_other_names_for_a_type_are_that_type(self, said: Any) -> None:
        cls = of(said)
        made = cls.new(Address("Rome"))
        assert through_the_database(cls, made) == Address("Rome")
        with pytest.raises(InvalidJob, match="city"):
            cls.new({"zip": 1})

    @pytest.mark.parametrize("said", [Any, dict, dict[str, Any], Mapping, Mapping[str, object]], ids=str)
    def test_a_plain_dict_may_be_declared_and_is_not_parsed(self, said: Any) -> None:
        made = of(said).new({"any": 1})
        assert made.args == {"any": 1}
        assert of(said).args_of(made) is made.args

    @pytest.mark.parametrize("said", [int, list[int], Address | None, object, enum.Enum, Ellipsis], ids=str)
    def test_a_type_that_no_json_object_can_have_is_refused(self, said: Any) -> None:
        with pytest.raises(ConfigError, match="must be a dataclass, a TypedDict or a pydantic model"):
            of(said)

    def test_a_type_that_pydantic_cannot_parse_is_refused_where_the_worker_is_defined(self) -> None:
        @dataclass
        class Open:
            what: "Undefined"  # type: ignore[name-defined]  # noqa: F821

        @dataclass
        class Strange:
            what: Worker

        class Later(BaseModel):
            what: "Undefined"  # type: ignore[name-defined]  # noqa: F821

        for said, problem in [
            (Open, "Undefined"),
            (Later, "Undefined"),
            (Strange, "Worker"),
            ("Gone", "Gone"),
        ]:
            with pytest.raises(ConfigError, match=f"Typed: its args.*{problem}"):
                of(said)

    def test_a_decorated_class_takes_its_type_as_an_option(self) -> None:
        @worker(args=Address, queue="media")
        class Plain:
            def process(self, job: Job, args: Address) -> str:
                return args.city

        cls: Any = Plain
        made = cls.new(Address("Rome"))
        assert (made.args, made.queue) == ({"city": "Rome", "zip": 0}, "media")
        assert cls().process(made, cls.args_of(made)) == "Rome"

    def test_an_annotation_of_another_class_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="gets its args as Address, not Model"):

            class Other(Worker[Address]):
                async def process(self, job: Job, args: Model) -> None: ...

        with pytest.raises(ConfigError, match=r"as dict, not Model: class Untyped\(Worker\[Model\]"):

            class Untyped(Worker):
                async def process(self, job: Job, args: "Model") -> None: ...

        with pytest.raises(ConfigError, match="as Mail, not Address"):

            @worker(args=Mail)
            class Decorated:
                async def process(self, job: Job, args: Address) -> None: ...

    def test_wider_annotations_and_those_that_cannot_be_resolved_pass(self) -> None:
        class Base(Worker[Derived]):
            async def process(self, job: Job, args: Address) -> None: ...

        class Unresolved(Worker[Address]):
            async def process(self, job: Job, args: "Unknown") -> None: ...  # type: ignore[name-defined]  # noqa: F821

        class Perhaps(Worker[Address]):
            async def process(self, job: Job, args: Address | None) -> None: ...

        class Either(Worker[Address | Model]):
            async def process(self, job: Job, args: Address | Model) -> None: ...

        class Dicts(Worker[Mail]):
            async def process(self, job: Job, args: Mapping[str, Any]) -> None: ...

        class Anything(Worker[Mail]):
            async def process(self, job: Job, args: Any) -> None: ...

        class Described(Worker):
            async def process(self, job: Job, args: Mail) -> None: ...

        assert Perhaps.takes == Either.takes == {"args"}
        assert Base.takes == Unresolved.takes == Dicts.takes == Anything.takes == Described.takes == {"args"}


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_pydantic_is_imported_by_the_first_worker_that_declares_its_args() -> None:
    code = """
import sys, oban, oban.cli, dataclasses
class Plain(oban.Worker):
    async def process(self, job): pass
Plain.new({"a": 1})
@dataclasses.dataclass
class Args: pass
before = "pydantic" in sys.modules
class Typed(oban.Worker[Args]): pass
print(before, "pydantic" in sys.modules)
"""
    assert run(code) == "False True"


def test_without_pydantic_the_error_says_what_to_install() -> None:
    code = """
import sys, oban, dataclasses
sys.modules["pydantic"] = None
@dataclasses.dataclass
class Args: pass
try:
    class Typed(oban.Worker[Args]): pass
except oban.errors.ConfigError as error:
    print(error)
"""
    expected = "Typed: args of a declared type need pydantic 2: pip install 'oban-sqlalchemy[pydantic]'"
    assert run(code) == expected
