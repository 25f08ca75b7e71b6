"""Build the image of the development engine, `dev-engine:<version>`:

    python -m dev.engine_image                      # by dev/engine/Dockerfile
    python -m dev.engine_image --without-registry   # of this machine's own Python: nothing is downloaded

The daemon is the one of DOCKER_HOST, else of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator
from pathlib import Path

import docker
from docker.errors import APIError, DockerException

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "dev-engine"
VERSION = "1.0.0"
_HOME = "/opt/galaxy"
_USER = "65532:65532"
# Of the standard library, what no server needs.
_LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "dist-packages"}


def _libraries(*programs: Path) -> Iterator[Path]:
    """Yield the shared libraries that programs are loaded with, the loader among them."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    yield from (Path(path) for path in sorted(set(re.findall(r"(/\S+) \(0x", told))))


def _python_files(interpreter: Path) -> Iterator[Path]:
    library = Path(sysconfig.get_paths()["stdlib"])
    extensions = sorted((library / "lib-dynload").glob("*.so"))
    yield interpreter
    yield from _libraries(interpreter, *extensions)
    for directory, names, files in os.walk(library):
        names[:] = sorted(name for name in names if name not in _LEFT_OUT and not name.startswith("config-"))
        yield from (Path(directory) / name for name in sorted(files))


def _root_file_system(interpreter: Path) -> bytes:
    """Return a tar of all that the engine needs to run: Python where it is on this machine, and the engine."""
    content = io.BytesIO()
    added: set[str] = set()
    with tarfile.open(fileobj=content, mode="w") as tar:

        def directory(path: Path) -> None:
            if str(path) == "/" or str(path) in added:
                return
            directory(path.parent)
            added.add(str(path))
            entry = tarfile.TarInfo(str(path).lstrip("/"))
            # Whoever it belongs to on this machine, here everybody may read it.
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)

        def file(source: Path, target: Path) -> None:
            if str(target) in added:
                return
            directory(target.parent)
            added.add(str(target))
            entry = tarfile.TarInfo(str(target).lstrip("/"))
            found = source.stat()
            entry.size, entry.mtime, entry.mode = found.st_size, int(found.st_mtime), 0o755
            with source.open("rb") as opened:
                tar.addfile(entry, opened)

        for path in _python_files(interpreter):
            file(path, path)
        file(ROOT / "dev" / "__init__.py", Path(_HOME) / "dev" / "__init__.py")
        for path in sorted((ROOT / "dev" / "engine").glob("*.py")):
            file(path, Path(_HOME) / "dev" / "engine" / path.name)
        directory(Path("/tmp"))  # noqa: S108  # of the container
    return content.getvalue()


def make_without_registry(client: docker.DockerClient, version: str = VERSION) -> str:
    """Make the image of this machine's Python and return its reference. Raises docker.errors.DockerException."""
    interpreter = Path(sys.executable).resolve()
    command = f'["{interpreter}", "-m", "dev.engine"]'
    changes = [f"CMD {command}", f"WORKDIR {_HOME}", f"USER {_USER}", "ENV PYTHONUNBUFFERED=1", "EXPOSE 8080"]
    reference = f"{IMAGE}:{version}"
    former = {image.id or "" for image in client.images.list(name=reference)}
    client.api.import_image_from_data(_root_file_system(interpreter), repository=IMAGE, tag=version, changes=changes)
    for image_id in former - {client.images.get(reference).id}:
        # It has no name any more; one that a container was made of is kept.
        with contextlib.suppress(APIError):
            client.images.remove(image_id)
    return reference


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the image of the development engine.")
    parser.add_argument("--version", default=VERSION, help=f"its tag ({VERSION})")
    parser.add_argument("--without-registry", action="store_true", help="of this machine's Python, instead of the Dockerfile")
    given = parser.parse_args()
    if not given.without_registry:
        command = ["docker", "build", "--tag", f"{IMAGE}:{given.version}", "--file", "dev/engine/Dockerfile", "."]
        return subprocess.run(command, cwd=ROOT, check=False).returncode
    try:
        client = docker.from_env()
        try:
            print(f"made: {make_without_registry(client, given.version)}")
        finally:
            client.close()
    except DockerException as error:
        print(f"not made: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
