"""Jobs, changes and numbers as documents: what commands print with `--json` and what the JSON API answers."""
