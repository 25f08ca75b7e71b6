"""The job side: tasks, the SMTP client, the push streamer. The only place for asyncio."""
