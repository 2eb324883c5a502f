"""alembic-postgresql-enum and alembic_utils, whose comparators apply to a whole process, for single tests."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

import alembic.autogenerate
from alembic.autogenerate import compare


@cache
def _comparators() -> Any:
    """Alembic's comparators with those of both packages, which register them when they are imported."""
    comparators = compare.comparators.branch()
    with _replaced(comparators):
        import alembic_postgresql_enum
        import alembic_utils.replaceable_entity

        assert alembic_postgresql_enum
        assert alembic_utils
    return comparators


@contextmanager
def _replaced(comparators: Any) -> Iterator[None]:
    with (
        mock.patch.object(compare, "comparators", comparators),
        mock.patch.object(alembic.autogenerate, "comparators", comparators),
    ):
        yield


@contextmanager
def alembic_tools() -> Iterator[None]:
    """Let autogenerate compare with both packages, and forget what an env.py has registered with them."""
    comparators = _comparators()
    from alembic_utils import replaceable_entity

    registry: Any = replaceable_entity.registry
    with _replaced(comparators):
        try:
            yield
        finally:
            registry.clear()
