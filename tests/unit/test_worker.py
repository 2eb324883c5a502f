"""Workers are defined, named and registered, and make jobs."""

import asyncio
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from oban import Job, Worker, current_job, job, worker
from oban.errors import ConfigError, InstanceNotFound, InvalidJob, UnknownWorker
from oban.job_function import FunctionWorker
from oban.registry import registry


class Plain(Worker):
    async def process(self, job: Job) -> None:
        return None


class Configured(
    Worker, queue="media", priority=3, max_attempts=5, tags=["B ", "a", "b"], meta={"k": 1}, name="configured"
):
    async def process(self, job: Job) -> None:
        return None


class Derived(Configured, priority=7):
    pass


@job(queue="mailers", tags=["mail"])
async def send(to: str, subject: str = "Hi", *, urgent: bool = False) -> str:
    """Send it."""
    return f"{to}: {subject}{'!' if urgent else ''}"


def made(cls: type[Any]) -> type[Worker]:
    """The class that @worker made, typed as the worker that it is now."""
    assert issubclass(cls, Worker)
    return cls


class TestClasses:
    def test_a_worker_is_named_after_its_module_and_class(self) -> None:
        assert Plain.worker_name == "tests.unit.test_worker.Plain"
        assert registry["tests.unit.test_worker.Plain"] is Plain

    def test_an_explicit_name_replaces_it(self) -> None:
        assert Configured.worker_name == "configured"
        assert registry["configured"] is Configured

    def test_a_class_without_options_makes_jobs_with_the_defaults(self) -> None:
        made = Plain.new()
        assert (made.worker, made.args) == ("tests.unit.test_worker.Plain", {})
        assert (made.queue, made.priority, made.max_attempts) == ("default", 0, 20)
        assert (made.tags, made.meta, made.state) == ([], {}, "available")

    def test_options_of_the_class_are_those_of_its_jobs(self) -> None:
        made = Configured.new({"n": 1})
        assert (made.queue, made.priority, made.max_attempts) == ("media", 3, 5)
        assert (made.tags, made.meta, made.args) == (["a", "b"], {"k": 1}, {"n": 1})

    def test_a_subclass_inherits_options_but_not_the_name(self) -> None:
        made = Derived.new()
        assert made.worker == "tests.unit.test_worker.Derived"
        assert (made.queue, made.priority, made.max_attempts) == ("media", 7, 5)
        assert Configured.new().priority == 3

    def test_overrides_are_for_one_job(self) -> None:
        made = Configured.new(queue="other", priority=0, max_attempts=1, tags=["x"], meta={})
        assert (made.queue, made.priority, made.max_attempts) == ("other", 0, 1)
        assert (made.tags, made.meta) == (["x"], {})
        assert Configured.new().queue == "media"

    def test_jobs_do_not_share_their_values(self) -> None:
        given = {"list": [1]}
        first, second = Configured.new(given), Configured.new(given)
        first.args["list"].append(2)
        first.meta["k"] = 2
        first.tags.append("z")
        assert given == {"list": [1]}
        assert (second.args, second.meta, second.tags) == ({"list": [1]}, {"k": 1}, ["a", "b"])
        assert Configured.new().meta == {"k": 1}
        assert Configured.new().tags == ["a", "b"]

    def test_jobs_of_a_worker_without_tags_and_meta_do_not_share_any_either(self) -> None:
        first, second = Plain.new(), Plain.new()
        for field in ("args", "meta", "tags", "errors", "attempted_by"):
            assert getattr(first, field) is not getattr(second, field)

    @pytest.mark.parametrize("options", [{}, {"queue": "media", "max_attempts": 5}])
    def test_a_job_of_a_worker_is_like_one_that_names_the_worker(self, options: Any) -> None:
        other: Any = type("Other", (Plain,), {}, **options)
        made = (other.new({"n": 1}), Job(worker=other.worker_name, args={"n": 1}, **options))
        first, second = (
            {key: value for key, value in vars(job).items() if key != "_sa_instance_state"} for job in made
        )
        assert first == second

    def test_a_job_may_be_scheduled(self) -> None:
        at = datetime.now(UTC) + timedelta(hours=1)
        assert Plain.new(scheduled_at=at).scheduled_at == at
        assert Plain.new(scheduled_at=at).state == "scheduled"
        assert Plain.new(schedule_in=60).state == "scheduled"
        assert Plain.new(schedule_in=timedelta(minutes=1)).state == "scheduled"

    @pytest.mark.parametrize(
        ("options", "hint"),
        [
            ({"queu": "x"}, "did you mean queue"),
            ({"state": "executing"}, "unknown option 'state'"),
            ({"args": {}}, "unknown option 'args'"),
            ({"queue": "no spaces"}, "not a queue name"),
            ({"priority": 10}, "priority must be 0 to 9"),
            ({"max_attempts": 0}, "max_attempts"),
            ({"tags": "text"}, "tags must be a list"),
            ({"meta": {1: 2}}, "not a string"),
            ({"name": " "}, "blank"),
            ({"name": "x" * 256}, "255"),
        ],
        ids=str,
    )
    def test_a_wrong_option_is_refused_where_the_class_is_defined(
        self, options: dict[str, Any], hint: str
    ) -> None:
        before = list(registry)
        with pytest.raises(ConfigError, match=hint) as raised:
            type("Wrong", (Worker,), {}, **options)
        assert "Wrong" in str(raised.value)
        assert list(registry) == before

    @pytest.mark.parametrize("override", [{"id": 5}, {"state": "completed"}, {"quue": "x"}, {"attempt": 3}])
    def test_a_field_that_cannot_be_set_is_refused_where_a_job_is_made(
        self, override: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidJob):
            Plain.new({}, **override)


@dataclass
class ReportArgs:
    to: str
    tag: str = ""


class Report(Worker[ReportArgs]):
    async def process(self, job: Job) -> None: ...


class TestMisplacedArgs:
    """A keyword that is not an option is probably one of the job's args."""

    @pytest.mark.parametrize(
        ("cls", "keywords", "advice"),
        [
            (Plain, {"to": 1}, "to cannot be set; pass args as a dict: Plain.{call}({{'to': …}})"),
            (Plain, {"to": 1, "id": 2}, "pass args as a dict: Plain.{call}({{'to': …, 'id': …}})"),
            (Report, {"to": 1}, "to cannot be set; pass args as an object: Report.{call}(ReportArgs(to=…))"),
            (
                Plain,
                {"shedule_in": 1},
                "did you mean schedule_in? If it is one of the args, pass args as a dict:"
                " Plain.{call}({{'shedule_in': …}})",
            ),
            (
                Report,
                {"tag": 1},
                "did you mean tags? If it is one of the args, pass args as an object:"
                " Report.{call}(ReportArgs(tag=…))",
            ),
        ],
    )
    @pytest.mark.parametrize("call", ["new", "enqueue", "enqueue_sync"])
    async def test_the_error_shows_where_they_go(
        self, cls: Any, keywords: dict[str, Any], advice: str, call: str
    ) -> None:
        async def make() -> None:
            made = getattr(cls, call)(**keywords)
            if inspect.isawaitable(made):
                await made

        with pytest.raises(InvalidJob) as caught:
            await make()
        assert str(caught.value).endswith(advice.format(call=call))
        assert caught.value.field == next(iter(keywords))

    def test_a_decorated_class_is_named_as_it_is_written(self) -> None:
        @worker(queue="media")
        class Send:
            def process(self, job: Job) -> None: ...

        loose: Any = Send
        with pytest.raises(InvalidJob, match=r"a dict: Send\.new\(\{'a': …\}\)"):
            loose.new(a=1)


class TestDecoratedClasses:
    def test_a_plain_class_becomes_a_worker_with_its_own_name(self) -> None:
        @worker(queue="media", priority=2)
        class Import:
            """Imports."""

            factor = 2

            def process(self, job: Job) -> int:
                return self.helper(job) * self.factor

            def helper(self, job: Job) -> int:
                return int(job.args["n"])

        cls = made(Import)
        assert cls.worker_name.endswith("<locals>.Import")
        assert (cls.__name__, cls.__doc__, cls.__module__) == ("Import", "Imports.", __name__)
        assert registry[cls.worker_name] is cls
        enqueued = cls.new({"n": 21})
        assert (enqueued.queue, enqueued.priority) == ("media", 2)
        assert cls().process(enqueued) == 42

    def test_a_backoff_of_the_class_is_used(self) -> None:
        @worker(name="own backoff")
        class Own:
            async def process(self, job: Job) -> None:
                return None

            def backoff(self, job: Job) -> float:
                return 7

        assert made(Own)().backoff(made(Own).new()) == 7

    def test_a_class_without_process_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="needs a process method"):

            @worker()
            class Nothing:
                pass

    def test_a_wrong_option_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="did you mean queue"):

            @worker(quue="x")  # type: ignore[call-overload]
            class Misspelt:
                def process(self, job: Job) -> None:
                    return None


class TestBareDecorators:
    def test_they_need_no_parentheses(self) -> None:
        @worker
        class Plain:
            def process(self, job: Job) -> None: ...

        @job
        def add(a: int, b: int = 1) -> int:
            return a + b

        assert Plain.worker_name.endswith(".Plain")  # type: ignore[attr-defined]
        assert Plain.new().worker.endswith(".Plain")  # type: ignore[attr-defined]
        assert add.new(1, b=2).args == {"a": 1, "b": 2}
        assert add(1) == 2


class TestFunctions:
    def test_arguments_become_args_by_their_names(self) -> None:
        assert send.new("a@b.c").args == {"to": "a@b.c"}
        assert send.new("a@b.c", "Yo", urgent=True).args == {"to": "a@b.c", "subject": "Yo", "urgent": True}
        assert send.new(to="x", subject="y").args == {"to": "x", "subject": "y"}

    def test_the_job_has_the_options_of_the_decorator(self) -> None:
        made = send.new("x")
        assert (made.worker, made.queue, made.tags) == ("tests.unit.test_worker.send", "mailers", ["mail"])

    def test_a_job_function_can_be_called(self) -> None:
        assert asyncio.run(send("x", "y", urgent=True)) == "x: y!"

    def test_the_function_keeps_its_name_and_documentation(self) -> None:
        assert (vars(send)["__name__"], send.__doc__) == ("send", "Send it.")
        assert send.worker.worker_name == "tests.unit.test_worker.send"
        assert registry["tests.unit.test_worker.send"] is send.worker

    @pytest.mark.parametrize(
        ("args", "kwargs"), [((), {}), (("x",), {"sbject": 1}), ((1, 2, 3), {}), (("x",), {"to": "y"})]
    )
    def test_arguments_that_it_does_not_take_are_refused(self, args: Any, kwargs: Any) -> None:
        with pytest.raises(InvalidJob, match="send"):
            send.new(*args, **kwargs)

    def test_an_option_among_the_arguments_is_explained(self) -> None:
        loose: Any = send
        with pytest.raises(InvalidJob, match=r"set with send\.with_options\(schedule_in=…, queue=…\)$"):
            loose.new("a", schedule_in=60, queue="media")
        with pytest.raises(InvalidJob, match=r"unexpected keyword argument 'other'$"):
            loose.new("a", other=1)

    def test_arguments_that_are_not_json_are_refused_by_their_name(self) -> None:
        with pytest.raises(InvalidJob, match=r'args\["to"\] is not JSON: set'):
            send.new({"x"})  # type: ignore[arg-type]

    def test_with_options_changes_a_copy(self) -> None:
        slow = send.with_options(queue="slow", priority=9).with_options(schedule_in=60, queue="slower")
        made = slow.new("x")
        assert (made.queue, made.priority, made.state) == ("slower", 9, "scheduled")
        assert made.tags == ["mail"]
        assert (send.new("x").queue, send.new("x").priority) == ("mailers", 0)
        assert isinstance(slow, FunctionWorker)
        assert asyncio.run(slow("x")) == "x: Hi"

    def test_parameters_can_have_any_name(self) -> None:
        names = "self cls job args kwargs function new enqueue name worker arguments call overrides options"
        scope: dict[str, Any] = {}
        exec(f"def named({', '.join(names.split())}): return locals()", scope)
        named = job(name="any names")(scope["named"])
        given = {name: name for name in names.split()}
        assert named(**given) == given
        assert named.new(**given).args == named.with_options(priority=1).new(**given).args == given
        assert named.call(given) == given

    def test_options_called_self_or_cls_are_unknown_names(self) -> None:
        @job(name="no options")
        def none() -> None:
            return None

        calls: list[Callable[..., Any]] = [
            *(
                Plain.new,
                none.with_options,
                none.new,
            ),
        ]
        for call in calls:
            for name in ("self", "cls"):
                with pytest.raises(InvalidJob, match=name):
                    call(**{name: 1})

    @pytest.mark.parametrize(
        "override",
        [{"quue": "x"}, {"priority": -1}, {"schedule_in": math.inf}, {"args": {}}, {"worker": "other"}],
    )
    def test_with_options_refuses_what_no_job_can_have(self, override: dict[str, Any]) -> None:
        with pytest.raises(InvalidJob):
            send.with_options(**override)

    def test_positional_only_default_and_variadic_parameters_come_back(self) -> None:
        @job(name="all kinds")
        def kinds(a: int, /, b: int = 2, *rest: int, c: int = 4, **more: int) -> list[Any]:
            return [a, b, list(rest), c, more]

        for args, kwargs in [
            ((1,), {}),
            ((1, 5), {"c": 6}),
            ((1, 5, 7, 8), {}),
            ((1,), {"c": 6, "d": 9, "e": 10}),
            ((1, 2, 3), {"d": 4}),
        ]:
            # As after a round trip through the database, where tuples have become lists.
            enqueued = kinds.new(*args, **kwargs)
            assert kinds.call(enqueued.args) == kinds(*args, **kwargs)

    def test_arguments_of_an_older_version_are_named(self) -> None:
        with pytest.raises(TypeError, match="takes no gone"):
            send.call({"to": "x", "gone": 1})
        with pytest.raises(TypeError, match="missing"):
            asyncio.run(send.call({}))

    @pytest.mark.parametrize("given", [int, print, "text", None, Plain])
    def test_something_that_is_not_a_function_is_refused(self, given: Any) -> None:
        with pytest.raises(ConfigError, match="needs a function"):
            job()(given)


class TestRegistry:
    def test_an_unknown_name_is_an_error_that_says_what_to_do(self) -> None:
        with pytest.raises(UnknownWorker, match=r"'os\.system'.*import the module"):
            registry["os.system"]

    def test_a_later_class_of_the_same_name_replaces_the_first(self) -> None:
        first: type[Worker] = type("Twice", (Plain,), {}, name="twice")
        assert registry["twice"] is first
        second: type[Worker] = type("Twice", (Plain,), {}, name="twice")
        assert registry["twice"] is second


async def test_enqueueing_without_an_instance_says_how_to_make_one() -> None:
    class Orphan(Worker, oban="nobody"):
        async def process(self, job: Job) -> None:
            return None

    with pytest.raises(InstanceNotFound, match=r"Oban\(.*name='nobody'"):
        await Orphan.enqueue()


def test_outside_of_a_run_there_is_no_current_job() -> None:
    assert current_job() is None
