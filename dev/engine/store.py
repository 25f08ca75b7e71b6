"""The state directory: one engine's at a time, and never with half a file in it."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

LOCK = "engine.lock"
ENDPOINT = "endpoint.json"


class LockedError(Exception):
    """Another engine runs over the state directory."""


def hold_lock(directory: Path, inherited: int | None) -> int:
    """Take the lock for this process's life, or go on with the one that whoever started us has taken for us.

    `inherited` is a descriptor of the same file. The lock belongs to what was opened, not to a process: it stays
    while any descriptor of it is open, so from before our start on there is no moment at which it is free.
    """
    path = directory / LOCK
    if inherited is not None:
        theirs, ours = os.fstat(inherited), path.stat()
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            raise ValueError(f"descriptor {inherited} is not {path}")
        os.set_inheritable(inherited, False)
        descriptor = inherited
    else:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LockedError(f"another engine runs over {directory}: its {LOCK} is held") from None
    return descriptor


def write_json(path: Path, content: object) -> None:
    """Write a file in one step; when this returns, it is on the disk. For one writer per file at a time."""
    unfinished = path.with_name(f".{path.name}.new")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode())
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_json(path: Path) -> Any:
    """Return a file's content, None without the file; raises ValueError for what we cannot have written."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
