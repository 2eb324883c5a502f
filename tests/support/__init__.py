"""Helpers that tests in several folders share, one module per topic."""
