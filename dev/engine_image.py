"""Build the image of the development engine, `dev-engine:<version>`, by dev/engine/Dockerfile:

    python -m dev.engine_image                      # on the Python that the Dockerfile names
    python -m dev.engine_image --without-registry   # on this machine's own Python: nothing is downloaded

The daemon is the one of DOCKER_HOST, else of this machine.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
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
import requests
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "dev-engine"
VERSION = "1.0.0"
BASE = "dev-engine-python"
_DOCKERFILE = "dev/engine/Dockerfile"
_PYTHON = "/usr/local/bin/python"
# Of the standard library, what no server needs.
_LEFT_OUT = re.compile(
    r"test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|distutils|pydoc_data|site-packages|dist-packages|config-.*"
    r"|.*\.opt-[12]\.pyc|(_tkinter|_sqlite3|_test.*|_ctypes_test|_xx.*|xx.*|_curses.*|readline|_?gdbm|_dbm|nis)\..*\.so"
)


class Tree:
    """A tar that grows file by file, each with the directories that it is in; the same files make the same bytes."""

    def __init__(self) -> None:
        self._content = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._content, mode="w")  # noqa: SIM115  # closed by bytes()
        self._added: set[str] = set()

    def directory(self, path: Path, mode: int = 0o755, owner: int = 0) -> None:
        if str(path) in ("/", ".") or str(path) in self._added:
            return
        self.directory(path.parent)
        entry = self._entry(path)
        # Whoever it belongs to on this machine, here everybody may read it.
        entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, owner, owner
        self._tar.addfile(entry)

    def file(self, source: Path, target: Path) -> None:
        if str(target) in self._added:
            return
        self.directory(target.parent)
        entry = self._entry(target)
        found = source.stat()
        # Python believes what it has compiled while the time of the source is the same.
        entry.size, entry.mtime, entry.mode = found.st_size, int(found.st_mtime), 0o755
        with source.open("rb") as opened:
            self._tar.addfile(entry, opened)

    def text(self, path: Path, content: str) -> None:
        self.directory(path.parent)
        entry = self._entry(path)
        entry.size, entry.mode = len(content.encode()), 0o644
        self._tar.addfile(entry, io.BytesIO(content.encode()))

    def link(self, path: Path, target: Path) -> None:
        if str(path) in self._added:
            return
        self.directory(path.parent)
        entry = self._entry(path)
        entry.type, entry.linkname = tarfile.SYMTYPE, str(target)
        self._tar.addfile(entry)

    def bytes(self) -> bytes:
        self._tar.close()
        return self._content.getvalue()

    def _entry(self, path: Path) -> tarfile.TarInfo:
        self._added.add(str(path))
        return tarfile.TarInfo(str(path).lstrip("/"))


def libraries(*programs: Path) -> Iterator[Path]:
    """Yield the shared libraries that programs are loaded with, the loader among them."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, check=False).stdout
    yield from (Path(path) for path in sorted(set(re.findall(r"(/\S+) \(0x", told))))


def add_python(tree: Tree) -> None:
    """Add this machine's Python, where it is here and by the name that the Dockerfiles call it."""
    interpreter = Path(sys.executable).resolve()
    library = Path(sysconfig.get_paths()["stdlib"])
    tree.file(interpreter, interpreter)
    extensions = []
    for parent, directories, files in os.walk(library):
        directories[:] = sorted(name for name in directories if not _LEFT_OUT.fullmatch(name))
        for path in (Path(parent) / name for name in sorted(files) if not _LEFT_OUT.fullmatch(name)):
            tree.file(path, path)
            if path.suffix == ".so":
                extensions.append(path)
    for path in libraries(interpreter, *extensions):
        tree.file(path, path)
    if str(interpreter) != _PYTHON:
        tree.link(Path(_PYTHON), interpreter)
    tree.directory(Path("/tmp"), mode=0o1777)  # noqa: S108  # of the container


def _base(client: docker.DockerClient) -> str:
    """Return the reference of an image of this machine's Python; it is made where there is none of the same files."""
    tree = Tree()
    add_python(tree)
    content = tree.bytes()
    tag = hashlib.sha256(content).hexdigest()[:16]
    try:
        client.images.get(f"{BASE}:{tag}")
    except ImageNotFound:
        path = f"ENV PATH={Path(_PYTHON).parent}:/usr/bin:/bin"
        client.api.import_image_from_data(content, repository=BASE, tag=tag, changes=[path])
    return f"{BASE}:{tag}"


def build(client: docker.DockerClient, version: str = VERSION, *, without_registry: bool = False) -> str:
    """Build the image, or find that it is there, and return its reference. Raises docker.errors.DockerException."""
    context = Tree()
    sources = [ROOT / "dev" / "__init__.py", *sorted((ROOT / "dev" / "engine").glob("*.py"))]
    for path in (ROOT / _DOCKERFILE, *sources):
        context.file(path, path.relative_to(ROOT))
    reference = f"{IMAGE}:{version}"
    base = _base(client) if without_registry else None
    former = [*client.images.list(name=reference), *client.images.list(name=BASE)]
    image, _ = client.images.build(
        fileobj=io.BytesIO(context.bytes()),
        custom_context=True,
        dockerfile=_DOCKERFILE,
        buildargs={} if base is None else {"BASE": base},
        tag=reference,
        rm=True,
        forcerm=True,
    )
    for other in former:
        # What another has taken the place of; one that a container was made of is kept.
        if other.id != image.id and base not in other.tags:
            with contextlib.suppress(APIError):
                client.images.remove(other.id or "")
    return reference


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the image of the development engine.")
    parser.add_argument("--version", default=VERSION, help=f"its tag ({VERSION})")
    parser.add_argument("--without-registry", action="store_true", help="on this machine's Python, instead of a downloaded one")
    given = parser.parse_args()
    try:
        client = docker.from_env()
        try:
            print(f"built: {build(client, given.version, without_registry=given.without_registry)}")
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
