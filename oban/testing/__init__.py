"""Helpers for the tests of applications with jobs.

They run the real code on the test's database. Each is awaited with an `Oban`, and returns its value at once
with a `SyncOban`.
"""
