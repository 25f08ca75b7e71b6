"""Build the images of compose.yaml by the Dockerfile:

    python -m dev.service_image                      # on the Python that the Dockerfile names
    python -m dev.service_image --without-registry   # on this machine's own Python, packages and Postgres: nothing is downloaded

The second also makes an image that stands in for the official one of Postgres, `galaxy-postgres`. The daemon is the one of
DOCKER_HOST, else of this machine.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import io
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
BASE = "galaxy-base"
POSTGRES = "galaxy-postgres"
IMAGES = {"service": "galaxy-backend", "migrate": "galaxy-backend-migrate", "development": "galaxy-backend-development"}
_VENV = Path("/opt/venv")
_CONTEXT = ("app", "db", "dev", "ops", "proto", "requirements", "workers", "Dockerfile", "sqitch.conf", "sqitch.plan")

# Debian's packages that the migration and Postgres are made of, with what they depend on.
_DEBIAN = ("coreutils", "dash", "libc-bin", "libdbd-pg-perl", "perl", "sed", "sqitch", "tzdata")
_NOT_NEEDED = re.compile(r"libllvm.*|debconf|.*-doc|adduser|passwd|dpkg|python3.*|libpython3.*")
_LEFT_OUT = re.compile(r"/usr/share/(doc|man|info|locale|lintian|bug)/.*|.*/llvmjit.*|.*/bitcode/.*")
_ACCOUNTS = {
    "/etc/passwd": "root:x:0:0::/tmp:/bin/sh\npostgres:x:999:999::/tmp:/bin/sh\ngalaxy:x:65532:65532::/tmp:/bin/sh\n",
    "/etc/group": "root:x:0:\npostgres:x:999:\ngalaxy:x:65532:\n",
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
    """Yield these packages and all that they depend on, as far as installed here."""
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


def _add_packages(tree: Tree, requirements: Path) -> None:
    """Add the packages of a lock file, from the environment that runs this, as the virtual environment of the image."""
    here = Path(sys.prefix)
    site = _VENV / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    shared = []
    for name in re.findall(r"^([A-Za-z0-9._-]+)==", requirements.read_text(), re.MULTILINE):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." not in file.parts and source.is_file():
                tree.file(source, site / file)
                if ".so" in source.suffixes:
                    shared.append(source)
    for path in libraries(*shared):
        # What a wheel brings along it finds beside itself.
        if not path.resolve().is_relative_to(here.resolve()):
            tree.file(path, path)
    tree.file(here / "pyvenv.cfg", _VENV / "pyvenv.cfg")
    for link in ("python", "python3"):
        tree.link(_VENV / "bin" / link, Path("/usr/local/bin/python"))


def _base() -> bytes:
    """Return a tar of this machine's Python, with the packages, Sqitch and psql."""
    tree = Tree()
    _add_debian(tree, (*_DEBIAN, f"postgresql-client-{find_binaries().parent.name}"))
    add_python(tree)
    _add_packages(tree, ROOT / "requirements" / "dev.txt")
    for path, text in _ACCOUNTS.items():
        tree.text(Path(path), text)
    return tree.bytes()


def _postgres() -> bytes:
    """Return a tar of this machine's Postgres, with what makes a cluster of it."""
    binaries = find_binaries()
    tree = Tree()
    _add_debian(tree, ("coreutils", "dash", "libc-bin", "sed", "tzdata", f"postgresql-{binaries.parent.name}"))
    for path, text in {**_ACCOUNTS, "/entrypoint.sh": _ENTRYPOINT.format(binaries=binaries)}.items():
        tree.text(Path(path), text)
    tree.directory(Path("/tmp"), mode=0o1777)  # noqa: S108  # of the container
    tree.directory(Path("/var/lib/postgresql/data"), owner=999)
    return tree.bytes()


def _context() -> bytes:
    tree = Tree()
    for name in _CONTEXT:
        root = ROOT / name
        for path in [root] if root.is_file() else sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                tree.file(path, path.relative_to(ROOT))
    return tree.bytes()


def build(client: docker.DockerClient, version: str = "latest", *, without_registry: bool = False) -> None:
    """Build every image. Raises docker.errors.DockerException."""
    arguments = {}
    if without_registry:
        client.api.import_image_from_data(
            _base(), repository=BASE, tag=version, changes=["ENV PATH=/usr/local/bin:/usr/bin:/bin"]
        )
        changes = ["USER postgres", 'ENTRYPOINT ["/bin/sh", "/entrypoint.sh"]', "ENV PATH=/usr/bin:/bin"]
        client.api.import_image_from_data(_postgres(), repository=POSTGRES, tag=version, changes=changes)
        arguments = {"BASE": f"{BASE}:{version}"}
    context = _context()
    for target, name in IMAGES.items():
        client.images.build(
            fileobj=io.BytesIO(context),
            custom_context=True,
            target=target,
            buildargs=arguments,
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
