"""Engines: what runs them (the drivers) and what talks to them (the client)."""
