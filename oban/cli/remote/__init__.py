"""Commands with `--url`, which use the JSON API of a dashboard instead of a database."""
