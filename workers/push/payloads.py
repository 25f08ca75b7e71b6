"""What a client event tells, as it is sent: a FlatBuffers table of its kind (proto/notification.fbs), or JSON."""

from __future__ import annotations

import json
import logging
import re
from functools import lru_cache
from typing import NamedTuple

import flatbuffers

from proto.notification.v1 import notification_generated

log = logging.getLogger("galaxy.push")


class Field(NamedTuple):
    name: str
    attribute: str  # of the generated class
    type: type


class Table:
    """A table of the schema, by the class that flatc's object API has for it."""

    def __init__(self, generated: type) -> None:
        self._generated = generated
        # A string's default is None there, an integer's a number.
        self.fields = [
            Field(re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), attribute), attribute, int if default == 0 else str)
            for attribute, default in vars(generated()).items()
        ]

    def pack(self, payload_json: str) -> bytes:
        """Return the table as a buffer. Raises KeyError, TypeError or ValueError if the payload does not fit it."""
        payload = json.loads(payload_json)
        if type(payload) is not dict:
            raise TypeError("it is not an object")
        table = self._generated()
        for field in self.fields:
            value = payload[field.name]
            # Null is left out; where it may not be, the database has refused it.
            if value is None and field.type is str:
                continue
            if type(value) is not field.type:
                raise TypeError(f"{field.name} is {type(value).__name__}, not {field.type.__name__}")
            setattr(table, field.attribute, value)
        builder = flatbuffers.Builder(256)
        builder.Finish(table.Pack(builder))  # raises TypeError for an integer out of range
        return bytes(builder.Output())


TABLES = {
    name.removesuffix("T"): Table(generated)
    for name, generated in vars(notification_generated).items()
    if hasattr(generated, "Pack")
}

# The kinds that we have warned of.
_misfits: set[str] = set()


@lru_cache(maxsize=256)
def table_name(kind: str) -> str:
    return "".join(word.capitalize() for word in re.split("[._]", kind))


def encode_payload(kind: str, payload_json: str) -> bytes:
    """Return a client event's payload as it is sent.

    That is the JSON text for a kind without a table. For any other it is the table, or nothing where the payload
    does not fit: never JSON. The database lets nothing pass that does not fit.
    """
    if table_name(kind) not in TABLES:
        return payload_json.encode()
    try:
        return _pack(kind, payload_json)
    except (KeyError, TypeError, ValueError) as misfit:
        if kind not in _misfits:
            _misfits.add(kind)
            log.warning("a payload does not fit its table, and is sent empty", extra={"kind": kind, "error": str(misfit)})
        return b""


# What every member of a game is told is the same, one event after another.
@lru_cache(maxsize=256)
def _pack(kind: str, payload_json: str) -> bytes:
    return TABLES[table_name(kind)].pack(payload_json)
