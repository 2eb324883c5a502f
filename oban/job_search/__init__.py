"""Search for jobs: the query language of the dashboard, and conditions that the commands use as well."""
