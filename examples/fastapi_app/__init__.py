"""Orders in FastAPI: enqueues, runs and manages its jobs in one process, all under asyncio."""
