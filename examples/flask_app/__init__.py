"""Orders in Flask: enqueues and manages jobs without asyncio; `oban start` runs them."""
