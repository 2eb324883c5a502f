"""Members who sign up: FastAPI and SQLModel serve, `oban start` runs the jobs, Alembic creates the tables."""
