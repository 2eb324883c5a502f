"""The engine and the sessions that the web server, the jobs and the migrations use."""

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlmodel.ext.asyncio.session import AsyncSession

engine = create_async_engine(os.environ.get("DATABASE_URL", "sqlite+aiosqlite:///members.db"))
sessions = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
