"""TLS to Postgres: every connection of every program has it where the connection string asks for it, to the right server only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dev.cluster import THROW_AWAY, Cluster, throw_away
from tests.postgres import ROOT, Database
from tests.push import Authority
from tests.services import Api, StartProgram, until


@dataclass
class _Encrypted(Database):
    """A database that is reached by TCP; `parameters` are what its connection strings ask for."""

    parameters: str = ""
    host: str = "127.0.0.1"

    def dsn(self, login: str) -> str:
        return f"postgresql://{login}@{self.host}:{self.cluster.port}/{self.name}?search_path=backend&{self.parameters}"


def _serve_tls(cluster: Cluster, certificate: Path, key: Path) -> None:
    """Let the server show a certificate, and refuse whoever comes by TCP without TLS."""
    for source in (certificate, key):
        copy = cluster.data / source.name
        shutil.copy(source, copy)
        copy.chmod(0o600)
        shutil.chown(copy, cluster.data.stat().st_uid, cluster.data.stat().st_gid)
    (cluster.data / "pg_hba.conf").write_text("local all all trust\nhostssl all all 127.0.0.1/32 trust\n")
    cluster.settings |= {"ssl": "on", "ssl_cert_file": certificate.name, "ssl_key_file": key.name}
    cluster.restart()


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path, Path]]:
    """A cluster with a certificate for 127.0.0.1; that of the authority that signed it, and of another."""
    directory = tmp_path_factory.mktemp("authorities")
    right, wrong = Authority(directory, "right"), Authority(directory, "wrong")
    with throw_away(THROW_AWAY) as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        _serve_tls(cluster, *right.issue("server"))
        yield cluster, right.certificate, wrong.certificate


def test_every_connection_of_every_program_is_encrypted(
    encrypted: tuple[Cluster, Path, Path], start_program: StartProgram
) -> None:
    cluster, authority, _ = encrypted
    database = _Encrypted(cluster, "galaxy", parameters=f"sslmode=verify-full&sslrootcert={authority}")
    api, push, worker = (start_program(name, database) for name in ("api", "push", "worker"))
    assert isinstance(api, Api)
    api.wait_ready()
    until(lambda: push.logged("serving") and worker.logged("working"))
    with cluster.connect("galaxy") as connection:
        rows = connection.execute(
            "SELECT a.usename, bool_and(s.ssl AND s.version LIKE 'TLSv1.%') FROM pg_stat_activity AS a JOIN pg_stat_ssl AS s"
            " USING (pid) WHERE a.usename LIKE 'galaxy%' GROUP BY a.usename"
        ).fetchall()
    assert dict(rows) == {"galaxy_api": True, "galaxy_push": True, "galaxy_worker": True}


@pytest.mark.parametrize("program", ["api", "worker"])
@pytest.mark.parametrize("trouble", ["another authority", "another host", "no TLS"])
def test_another_server_is_not_talked_to(
    encrypted: tuple[Cluster, Path, Path], start_program: StartProgram, program: str, trouble: str
) -> None:
    cluster, right, wrong = encrypted
    verified = "sslmode=verify-full&sslrootcert="
    database = {
        "another authority": _Encrypted(cluster, "galaxy", parameters=f"{verified}{wrong}"),
        "another host": _Encrypted(cluster, "galaxy", parameters=f"{verified}{right}", host="localhost"),
        "no TLS": _Encrypted(cluster, "galaxy", parameters="sslmode=disable"),
    }[trouble]
    # It may be that the server is being mended: try again later, and not "never".
    assert start_program(program, database).wait() == 1


def test_the_schema_is_deployed_over_tls(encrypted: tuple[Cluster, Path, Path]) -> None:
    cluster, right, wrong = encrypted
    for authority, status in ((right, 0), (wrong, 2)):
        given = {
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(authority),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        target = f"db:pg://galaxy_deploy@127.0.0.1:{cluster.port}/galaxy"
        done = subprocess.run(
            ["sqitch", "verify", target], cwd=ROOT, env=os.environ | given, capture_output=True, text=True, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
