"""`python -m app epoch`: begins a new epoch of the push stream, as whoever restored a backup must (docs/operations.md)."""

from __future__ import annotations

import sys

import psycopg

from app import dsn
from app.config import Config
from app.schema import EX_CONFIG
from workers.database import describe


def main(config: Config) -> int:
    """Print the cursor that the new epoch begins with. Returns 1 when the database refuses, 78 without a deploying login."""
    if config.postgres_dsn_deploy is None:
        sys.stderr.write("BACKEND_POSTGRES_DSN_DEPLOY: an epoch is begun by the login that deploys\n")
        return EX_CONFIG
    conninfo = dsn.conninfo(config.postgres_dsn_deploy, application_name=f"{config.service_name}-epoch", connect_timeout="5")
    try:
        with psycopg.connect(conninfo) as connection:
            connection.execute("SET LOCAL ROLE backend_owner")
            row = connection.execute("SELECT backend.push_epoch_begin()").fetchone()
    except psycopg.Error as error:
        sys.stderr.write(f"no new epoch: {describe(error)}\n")
        return 1
    assert row is not None
    sys.stdout.write(f"{row[0]}\n")
    return 0
