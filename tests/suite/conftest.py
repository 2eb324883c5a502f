"""The suite runs on every database, and on PostgreSQL through either driver."""

from tests.support.fixtures import factory, server_url

__all__ = ["factory", "server_url"]
