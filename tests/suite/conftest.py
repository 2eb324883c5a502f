"""The suite runs on SQLite, and on PostgreSQL through each async driver."""

from tests.support.fixtures import factory, server_url

__all__ = ["factory", "server_url"]
