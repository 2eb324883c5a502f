"""The JSON API of a dashboard, below `api/` of each instance. docs/api.md describes it."""
