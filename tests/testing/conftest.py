"""Fixtures of tests/testing."""

from tests.support.fixtures import server_url

__all__ = ["server_url"]
