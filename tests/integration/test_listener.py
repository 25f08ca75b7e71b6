"""Who is called when something is notified."""

from __future__ import annotations

import asyncio

from psycopg.conninfo import make_conninfo

from tests.postgres import Database
from workers.database import Database as Connection
from workers.listener import Listener


def test_it_passes_over_what_we_have_notified_ourselves(database: Database) -> None:
    cluster = database.cluster
    conninfo = make_conninfo(host=str(cluster.socket_directory), port=cluster.port, user="postgres", dbname=database.name)

    async def scenario() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        ourselves, others = (Connection(conninfo, timeout=10, lifetime=600) for _ in range(2))
        channels = {"proof": lambda: heard.put_nowait("proof"), "news": lambda: heard.put_nowait("news")}
        listening = asyncio.create_task(Listener(conninfo, "VARIABLE", others, channels, ourselves).run())

        # At the beginning all are called, and once more for the proof that notifications arrive.
        assert [await heard.get() for _ in range(3)] == ["proof", "news", "proof"]
        for speaker, channel in ((ourselves, "news"), (others, "proof"), (ourselves, "proof"), (others, "news")):
            await speaker.fetch("SELECT pg_notify(%s, '')", channel)
        assert [await heard.get() for _ in range(2)] == ["proof", "news"]
        # After it has come back it is another backend, and ourselves still.
        await ourselves.close()
        await ourselves.fetch("SELECT pg_notify('news', '')")
        await others.fetch("SELECT pg_notify('proof', '')")
        assert await heard.get() == "proof"
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await ourselves.close()
        await others.close()

    asyncio.run(asyncio.wait_for(scenario(), 30))
