"""Makes the tables of oban-py in the database that is named by a DSN."""

import asyncio
import sys

from oban.schema import install
from psycopg_pool import AsyncConnectionPool


async def main():
    async with AsyncConnectionPool(sys.argv[1], open=False) as pool:
        await install(pool)


asyncio.run(main())
