"""Each driver, as an application uses it: its own session, its own table, and jobs beside them."""
