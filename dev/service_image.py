"""Build the images of compose.yaml by the Dockerfile:

    python -m dev.service_image                      # on the Python that the Dockerfile names
    python -m dev.service_image --without-registry   # on this machine's own Python, packages and Postgres: nothing is downloaded

The second also makes an image that stands in for the official one of Postgres, `galaxy-postgres`. The daemon is the one of
DOCKER_HOST, else of this machine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import requests
from docker.errors import BuildError, DockerException

from dev.cluster import find_binaries
from dev.engine_image import Tree, add_python, libraries

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {"service": "galaxy-backend", "migrate": "galaxy-backend-migrate", "development": "galaxy-backend-development"}
# Made without a registry: what the Dockerfile calls BASE (for `migrate` another) and PACKAGES, and a stand-in for Postgres' own.
POSTGRES = "galaxy-postgres"
LOCAL = (POSTGRES, "galaxy-python", "galaxy-migrate-base", "galaxy-packages")
_SITE = Path(f"lib/python3.{sys.version_info.minor}/site-packages")
_PATH = "ENV PATH=/usr/local/bin:/usr/bin:/bin"

_SHELL = ("coreutils", "dash", "libc-bin")
# What Sqitch and psql are made of, with what they depend on.
_MIGRATION = (*_SHELL, "libdbd-pg-perl", "perl", "sed", "sqitch", "tzdata")
_NOT_NEEDED = re.compile(r"libllvm.*|debconf|.*-doc|adduser|passwd|dpkg|python3.*|libpython3.*")
_LEFT_OUT = re.compile(r"/usr/share/(doc|man|info|locale|lintian|bug)/.*|.*/llvmjit.*|.*/bitcode/.*")
_POSTGRES_ACCOUNT = {
    "/etc/passwd": "root:x:0:0::/tmp:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\npostgres:x:999:\n",
}

# What the official image does, as far as compose.yaml asks for it.
_ENTRYPOINT = """#!/bin/sh
set -eu
export PGDATA=/var/lib/postgresql/data/pgdata PATH={binaries}:/usr/bin:/bin
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" >/tmp/password
    initdb --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 $POSTGRES_INITDB_ARGS
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --wait --options="-c listen_addresses='' -c unix_socket_directories=/tmp" start
    export PGHOST=/tmp
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
    for script in /docker-entrypoint-initdb.d/*; do sh "$script"; done
    pg_ctl --wait stop
fi
exec postgres -c 'listen_addresses=*' -c unix_socket_directories=/tmp
"""


def _dependencies(names: tuple[str, ...]) -> Iterator[str]:
    """Yield these packages of Debian and all that they depend on, as far as installed here."""
    told = subprocess.run(
        ["dpkg-query", "--show", "--showformat=${Package}\t${Pre-Depends}, ${Depends}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    needs = {
        name: re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9.+-]+)", listed)
        for name, _, listed in (line.partition("\t") for line in told.splitlines())
    }
    wanted, seen = list(names), set()
    while wanted:
        name = wanted.pop()
        if name in needs and name not in seen and not _NOT_NEEDED.fullmatch(name):
            seen.add(name)
            yield name
            wanted += needs[name]


def _add_debian(tree: Tree, names: tuple[str, ...]) -> None:
    for top in ("bin", "sbin", "lib", "lib64"):
        if (Path("/") / top).is_symlink():
            tree.link(Path("/") / top, (Path("/") / top).readlink())
    listed = subprocess.run(
        ["dpkg", "--listfiles", *sorted(_dependencies(names))], capture_output=True, text=True, check=True
    ).stdout
    # Of Debian's time zones one leads here.
    tree.link(Path("/etc/localtime"), Path("/usr/share/zoneinfo/Etc/UTC"))
    for line in sorted(set(listed.splitlines())):
        found = Path(line)
        if not line.startswith("/") or not os.path.lexists(found) or _LEFT_OUT.fullmatch(line):
            continue
        path = found.parent.resolve() / found.name
        if path.is_symlink():
            tree.link(path, path.readlink())
        elif path.is_file():
            tree.file(path, path)


def _distributions(requirements: str) -> list[importlib.metadata.Distribution]:
    """The packages of a lock file, in the environment that runs this."""
    text = (ROOT / "requirements" / requirements).read_text()
    return [importlib.metadata.distribution(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", text, re.MULTILINE)]


def _files(distributions: list[importlib.metadata.Distribution]) -> Iterator[tuple[Path, Path]]:
    """Yield the files of packages, each with its place below site-packages."""
    for distribution in distributions:
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                yield source, Path(file)


def _python(*debian: str) -> bytes:
    """Return a tar of this machine's Python, with the shared libraries that the packages need, and some Debian packages."""
    tree = Tree()
    if debian:
        _add_debian(tree, debian)
    add_python(tree)
    here = Path(sys.prefix).resolve()
    shared = [source for source, _ in _files(_distributions("run.txt")) if ".so" in source.suffixes]
    for path in libraries(*shared):
        # What a wheel brings along it finds beside itself.
        if not path.resolve().is_relative_to(here):
            tree.file(path, path)
    return tree.bytes()


def _packages() -> bytes:
    """Return a tar of the virtual environment, what a trial needs beside it, and a shell."""
    tree = Tree()
    _add_debian(tree, _SHELL)
    venv = Path("/opt/venv")
    for source, place in _files(_distributions("run.txt")):
        tree.file(source, venv / _SITE / place)
    tree.file(Path(sys.prefix) / "pyvenv.cfg", venv / "pyvenv.cfg")
    for link in ("python", "python3"):
        tree.link(venv / "bin" / link, Path("/usr/local/bin/python"))
    for source, place in _files(_distributions("trial.txt")):
        tree.file(source, Path("/opt/trial") / place)
    tree.directory(Path("/tmp"), mode=0o1777)  # noqa: S108  # of the container
    return tree.bytes()


def _postgres() -> bytes:
    """Return a tar of this machine's Postgres, with what makes a cluster of it."""
    binaries = find_binaries()
    tree = Tree()
    _add_debian(tree, (*_SHELL, "tzdata", f"postgresql-{binaries.parent.name}", f"postgresql-client-{binaries.parent.name}"))
    for path, text in {**_POSTGRES_ACCOUNT, "/entrypoint.sh": _ENTRYPOINT.format(binaries=binaries)}.items():
        tree.text(Path(path), text)
    tree.directory(Path("/tmp"), mode=0o1777)  # noqa: S108  # of the container
    tree.directory(Path("/var/lib/postgresql/data"), owner=999)
    return tree.bytes()


def _made_here(client: docker.DockerClient, version: str) -> dict[str, dict[str, str]]:
    """Make what the Dockerfile would otherwise download, and the image of Postgres; return the arguments of each target."""
    postgres, python, migration, packages = (f"{name}:{version}" for name in LOCAL)
    as_postgres = ["USER postgres", 'ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]', "ENV PATH=/usr/bin:/bin"]
    debian = (*_MIGRATION, f"postgresql-client-{find_binaries().parent.name}")
    for reference, content, changes in (
        (postgres, _postgres(), as_postgres),
        (python, _python(), [_PATH]),
        (migration, _python(*debian), [_PATH]),
        (packages, _packages(), [_PATH]),
    ):
        repository, _, tag = reference.partition(":")
        client.api.import_image_from_data(content, repository=repository, tag=tag, changes=changes)
    bases = {"service": python, "migrate": migration, "development": python}
    return {target: {"BASE": base, "PACKAGES": packages} for target, base in bases.items()}


def build(client: docker.DockerClient, version: str = "latest", *, without_registry: bool = False) -> None:
    """Build every image. Raises docker.errors.DockerException."""
    arguments = _made_here(client, version) if without_registry else {}
    for target, name in IMAGES.items():
        client.images.build(
            path=str(ROOT),
            target=target,
            buildargs=arguments.get(target, {}),
            tag=f"{name}:{version}",
            rm=True,
            forcerm=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the images of compose.yaml.")
    parser.add_argument("--version", default="latest", help="their tag (latest)")
    parser.add_argument("--without-registry", action="store_true", help="of this machine's own files, instead of downloaded ones")
    given = parser.parse_args()
    try:
        client = docker.from_env(timeout=600)
        try:
            build(client, given.version, without_registry=given.without_registry)
        finally:
            client.close()
    except BuildError as error:
        said = "".join(str(step.get("stream") or step.get("error") or "") for step in error.build_log)
        print(f"{said}not built: {error}", file=sys.stderr)
        return 1
    except (DockerException, requests.RequestException) as error:
        print(f"not built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
