"""Each driver as an application uses it: with its own session, its own table, and jobs next to them."""
