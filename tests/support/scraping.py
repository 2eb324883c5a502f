"""Scrapes metrics as Prometheus does, and reads them with the official parsers."""

import math
from collections.abc import Iterable
from typing import Any
from wsgiref.util import setup_testing_defaults

import httpx
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from oban.prometheus import sampler

# On a slow machine, the half second for which a scrape waits is too short for a database that works.
sampler.PATIENCE = 20.0

#: What Prometheus asks for.
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Scrape:
    """The samples of one scrape.

    Args:
        text: The answer.
        content_type: Its content type, which decides about the parser.
    """

    def __init__(self, text: str, content_type: str) -> None:
        self.text = text
        is_open = content_type.startswith("application/openmetrics-text")
        parse: Any = openmetrics.text_string_to_metric_families if is_open else text_string_to_metric_families
        self.families = list(parse(text))
        self.samples = [sample for family in self.families for sample in family.samples]
        keys = [(sample.name, *sorted(sample.labels.items())) for sample in self.samples]
        assert len(keys) == len(set(keys)), "a series occurs twice"

    def value(self, name: str, **labels: str) -> float | None:
        """The sum of all series of this name with these labels; None if there is none."""
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return math.fsum(found) if found else None

    def labels(self, label: str, name: str | None = None) -> set[str]:
        """The values of a label, of all series or of those of this name."""
        return {
            sample.labels[label]
            for sample in self.samples
            if label in sample.labels and name in (None, sample.name)
        }


async def scrape(app: Any, accept: str = "") -> Scrape:
    """Scrape an ASGI application."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/metrics", headers={"accept": accept})
    assert response.status_code == 200
    return Scrape(response.text, response.headers["content-type"])


def scrape_wsgi(app: Any, accept: str = "") -> Scrape:
    """Scrape a WSGI application."""
    environ: dict[str, Any] = {"HTTP_ACCEPT": accept}
    setup_testing_defaults(environ)
    started: list[tuple[str, dict[str, str]]] = []
    body: Iterable[bytes] = app(environ, lambda status, headers: started.append((status, dict(headers))))
    text = b"".join(body).decode()
    ((status, headers),) = started
    assert status == "200 OK"
    return Scrape(text, headers["Content-Type"])
