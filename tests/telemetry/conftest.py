"""Databases on PostgreSQL only, besides those of all tests."""

from tests.support.fixtures import server_url

__all__ = ["server_url"]
