"""Plans of the library's statements on a PostgreSQL table of a million jobs."""
