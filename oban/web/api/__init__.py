"""The JSON API of a dashboard, below `api/` of each instance. docs/guides/api.md describes it."""
