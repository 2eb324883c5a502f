"""`GET /jobs`: the list of jobs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.responses import Response

from oban.errors import InvalidArgument
from oban.job_search import language, query
from oban.job_search.query import Query
from oban.web.jobs import counts, orders, search
from oban.web.jobs.orders import ORDERS, Order
from oban.web.visit import Visit

SIZES = (20, 50, 100)


@dataclass(frozen=True, slots=True)
class Address:
    """What the address of the list says.

    Attributes:
        text: The search as it was written.
        query: The search.
        order: The order of the list.
        size: How many jobs a page has.
        after, before: The place that the page begins after, or ends before.
        have: How many jobs of the page the browser has from the search before.
    """

    text: str
    query: Query
    order: Order
    size: int
    after: str | None = None
    before: str | None = None
    have: int = 0

    def parameters(self, **changes: Any) -> dict[str, Any]:
        """The parameters of the address of another page of the same list; `q`, `sort` and so on change it."""
        own = {
            "q": str(self.query) or None,
            "sort": self.order.name if self.order.name != "newest" else None,
            "size": self.size if self.size != SIZES[0] else None,
        }
        return {**own, **changes}


def parse(visit: Visit) -> Address:
    """Read the address of the list.

    Raises:
        InvalidArgument: The search is wrong, or asks for what is hidden from the user.
        WebError: Something else in the address is wrong.
    """
    given = visit.request.query_params
    text = given.get("q", "")
    found = query.parse(text)
    if state := given.get("state"):
        found = found.with_states(*map(language.parse_state, state.split(",")))
    found.refuse_hidden(visit.access.hidden)
    found.condition()
    size, have = given.get("size", ""), given.get("have", "")
    order = ORDERS.get(given.get("sort", ""), ORDERS["newest"])
    if not order.suits(found.states):
        order = ORDERS["newest"]
    return Address(
        text=text,
        query=found,
        order=order,
        size=int(size) if size in map(str, SIZES) else SIZES[0],
        after=given.get("after"),
        before=given.get("before"),
        have=min(int(have), int(size or SIZES[0]) - 1) if re.fullmatch(r"\d{1,2}", have, re.ASCII) else 0,
    )


async def show(visit: Visit) -> Response:
    """`GET /jobs`."""
    try:
        address = parse(visit)
    except InvalidArgument as error:
        text = visit.request.query_params.get("q", "")
        empty = Address(text, Query(), ORDERS["newest"], SIZES[0])
        return visit.render("jobs.html", 400, **_context(visit, empty), found=None, error=str(error), tabs=[])
    sample = await visit.instance.live.sample()
    found = search.Search(
        visit,
        address.query,
        address.order,
        address.size - address.have,
        search.few(sample.counts, sample.truncated, address.query.states),
    )
    backward = address.before is not None
    begin = address.before if backward else address.after
    place = orders.parse_place(address.order, begin) if begin else None
    async with visit.read() as session:
        page = await found.page(session, place, backward=backward)
        if backward and page.further is None and page.searched_to is None:
            # These are the first jobs of the list: their page is full, and shows what is new.
            address, backward = replace(address, before=None), False
            page = await found.page(session, None)
    tabs = counts.tabs(address.query, sample)
    context = _context(visit, address)
    context |= _links(visit, address, page, backward)
    return visit.render("jobs.html", **context, found=page, error=None, tabs=tabs)


def _context(visit: Visit, address: Address) -> dict[str, Any]:
    def link(**changes: Any) -> str:
        return visit.link("jobs", **address.parameters(**changes))

    chips = [
        (str(term), link(q=str(address.query.without(index)) or None))
        for index, term in enumerate(address.query.terms)
    ]
    suited = [order for order in ORDERS.values() if order.suits(address.query.states)]
    return {
        "address": address,
        "link": link,
        "chips": chips,
        "sorts": suited,
        "sizes": SIZES,
        "newer": None,
        "older": None,
        "onward": None,
        "searched": None,
        "automatic": None,
        "have": address.have,
        "actions": [
            (name, label)
            for name, label, permission in (
                ("cancel", "Cancel", "cancel_jobs"),
                ("retry", "Retry", "retry_jobs"),
                ("update", "Update…", "update_jobs"),
                ("delete", "Delete", "delete_jobs"),
            )
            if visit.access.allows(permission)
        ],
    }


def _links(visit: Visit, address: Address, page: search.Found, backward: bool) -> Mapping[str, Any]:
    """The links to the pages before and after this one."""

    def link(**changes: Any) -> str:
        return visit.link("jobs", **address.parameters(**changes))

    first = str(page.jobs[0].place) if page.jobs else None
    last = str(page.jobs[-1].place) if page.jobs else None
    if backward:
        newer = page.further and link(before=page.further)
        onward = page.searched_to and link(before=page.searched_to)
        older = last and link(after=last)
    else:
        newer = link(before=first or address.after) if address.after else None
        if not page.jobs and not address.have and "have" in visit.request.query_params:
            # The search has gone on by itself from the beginning of the list, and has found nothing.
            newer = None
        older = page.further and link(after=page.further)
        onward = page.searched_to and link(after=page.searched_to)
    searched = None
    if page.searched_to and address.order.column == "id":
        searched = int(page.searched_to)
    automatic = None
    if page.searched_to and not backward:
        automatic = link(after=page.searched_to, have=address.have + len(page.jobs))
    return {"newer": newer, "older": older, "onward": onward, "searched": searched, "automatic": automatic}
