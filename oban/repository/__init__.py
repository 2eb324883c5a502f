"""Every SQL statement about jobs, in sync functions that take a `Transaction` as their first argument.

They neither commit nor wait, and do not know whether an event loop is running: `oban.database` calls them. A
function comes before the statements that it runs.
"""
