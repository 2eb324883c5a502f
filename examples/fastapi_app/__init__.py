"""Orders in FastAPI: enqueues, runs and manages jobs in one process, under asyncio."""
