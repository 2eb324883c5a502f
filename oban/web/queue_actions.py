"""What users can do to queues: commands to one node or to all of them."""

from collections.abc import Awaitable, Callable

from starlette.datastructures import FormData
from starlette.responses import Response

from oban.amounts import counted
from oban.config import MAX_LIMIT
from oban.errors import ConfigError, InvalidJob
from oban.repository.queue_settings import ALL
from oban.web.routing import Action, Handler
from oban.web.visit import Visit

#: How much of a name a message has.
_SHOWN = 80


def _command(
    action: str, done: str, send: Callable[[Visit, str, str | None, FormData], Awaitable[str | None]]
) -> Handler:
    """A handler that sends a command about one queue. `send` can return what replaces `done`."""

    async def handle(visit: Visit) -> Response:
        form = await visit.request.form()
        queue, node = _text(form, "queue"), _text(form, "node") or None
        try:
            told = await send(visit, queue, node, form) or done
        except (ConfigError, InvalidJob) as error:
            return _answer(visit, form, queue, f"Nothing was changed: {error}", failed=True)
        visit.audit(action, target=_target(queue, node))
        return _answer(visit, form, queue, f"{_shown(queue)} is {told} {_where(node)}.")

    return handle


async def _pause(visit: Visit, queue: str, node: str | None, _: FormData) -> None:
    _refuse_all(queue)
    async with visit.write() as session:
        await visit.oban.pause_queue(queue, node, session)


async def _resume(visit: Visit, queue: str, node: str | None, _: FormData) -> None:
    _refuse_all(queue)
    async with visit.write() as session:
        await visit.oban.resume_queue(queue, node, session)


async def _stop(visit: Visit, queue: str, node: str | None, _: FormData) -> None:
    async with visit.write() as session:
        await visit.oban.stop_queue(queue, node, session)


async def _start(visit: Visit, queue: str, node: str | None, form: FormData) -> str:
    limit, paused = _limit(form), "paused" in form
    async with visit.write() as session:
        await visit.oban.start_queue(queue, limit, paused, node, session)
    return f"started{', but paused,' if paused else ''} with up to {counted(limit, 'job')} at once"


async def _scale(visit: Visit, queue: str, node: str | None, form: FormData) -> str:
    limit = None if "configured" in form else _limit(form)
    async with visit.write() as session:
        await visit.oban.scale_queue(queue, limit, node, session)
    return "limited as configured" if limit is None else f"limited to {counted(limit, 'job')} at once"


async def pause_all(visit: Visit) -> Response:
    """`POST /queues/pause-all`."""
    return await _to_all(visit, "pause_all_queues", "paused", visit.oban.pause_all_queues)


async def resume_all(visit: Visit) -> Response:
    """`POST /queues/resume-all`."""
    return await _to_all(visit, "resume_all_queues", "resumed", visit.oban.resume_all_queues)


async def _to_all(visit: Visit, action: str, done: str, send: Callable[..., Awaitable[None]]) -> Response:
    form = await visit.request.form()
    node = _text(form, "node") or None
    try:
        async with visit.write() as session:
            await send(node, session)
    except ConfigError as error:
        return visit.redirect("queues", f"Nothing was changed: {error}", failed=True)
    visit.audit(action, target=_target(ALL, node))
    return visit.redirect("queues", f"All queues are {done} {_where(node)}.")


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value if isinstance(value, str) else ""


def _limit(form: FormData) -> int:
    text = _text(form, "limit").strip()
    # The library checks the range.
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ConfigError(f"the limit must be a number from 1 to {MAX_LIMIT:,}, not {text[:40]!r}")
    return int(text)


def _refuse_all(queue: str) -> None:
    # A queue that another program has named so must not be taken for all queues.
    if queue == ALL:
        raise InvalidJob("queue", "* stands for all queues: there is a button for them on the page of queues")


def _target(queue: str, node: str | None) -> str:
    return queue if node is None else f"{queue} on {node}"


def _where(node: str | None) -> str:
    return "on all nodes" if node is None else f"on the node {_shown(node)}"


def _shown(name: str) -> str:
    return name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"


def _answer(visit: Visit, form: FormData, queue: str, message: str, *, failed: bool = False) -> Response:
    if _text(form, "back") == "queue":
        return visit.redirect("queues/one", message, failed=failed, name=queue)
    return visit.redirect("queues", message, failed=failed)


ROUTES = (
    Action("/queues/pause", _command("pause_queue", "paused", _pause), "manage_queues"),
    Action("/queues/resume", _command("resume_queue", "resumed", _resume), "manage_queues"),
    Action("/queues/stop", _command("stop_queue", "stopped", _stop), "manage_queues"),
    Action("/queues/start", _command("start_queue", "started", _start), "manage_queues"),
    Action("/queues/scale", _command("scale_queue", "limited", _scale), "manage_queues"),
    Action("/queues/pause-all", pause_all, "manage_queues"),
    Action("/queues/resume-all", resume_all, "manage_queues"),
)
