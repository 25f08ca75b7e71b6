"""Payloads of the push stream: tables for the kinds that have one, as flatc and a gateway's author read them."""

from __future__ import annotations

import json
import logging
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.push_client import decode_payload
from workers.push import payloads
from workers.push.payloads import TABLES, encode_payload, table_name

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "proto" / "notification.fbs"
GENERATED = ROOT / "proto" / "notification" / "v1"
FLATC = "flatc version 2.0.8"

# A kind for each table.
KINDS = [re.sub("(?<=.)(?=[A-Z])", ".", name).lower() for name in TABLES]

UUID = "0198c0de-0000-7000-8000-000000000001"
TURN_READY = {"game_id": UUID, "turn": 7}
TEXTS = ["x", "Żółw", "👩‍🚀🇺🇳", "שלום, مرحبا", "a\u202eb\u0000c\n", "😀" * 1000]


def payload(kind: str, text: str, number: int) -> dict[str, Any]:
    return {field.name: text if field.type is str else number for field in TABLES[table_name(kind)].fields}


def flatc(*arguments: object) -> str:
    return subprocess.run(["flatc", *map(str, arguments)], check=True, stdout=subprocess.PIPE, text=True).stdout


def flatc_reads(schema: Path, kind: str, sent: bytes, directory: Path) -> Any:
    (directory / "payload.bin").write_bytes(sent)
    root = f"galaxy.backend.notification.v1.{table_name(kind)}"
    flatc(
        "--json",
        "--strict-json",
        "--defaults-json",
        "--raw-binary",
        "--root-type",
        root,
        "-o",
        directory,
        schema,
        "--",
        directory / "payload.bin",
    )
    return json.loads((directory / "payload.json").read_text())


def flatc_makes(schema: Path, kind: str, content: dict[str, Any], directory: Path) -> bytes:
    (directory / "content.json").write_text(json.dumps(content))
    root = f"galaxy.backend.notification.v1.{table_name(kind)}"
    flatc("--binary", "--root-type", root, "-o", directory, schema, directory / "content.json")
    return (directory / "content.bin").read_bytes()


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    version = flatc("--version").strip()
    if version != FLATC:
        pytest.skip(
            f"the committed code is as {FLATC} writes it, this is {version}; the other tests say whether it fits the schema"
        )
    flatc("--python", "--gen-object-api", "--gen-onefile", "-o", tmp_path, SCHEMA)
    generated = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert generated == {p.name: p.read_text() for p in GENERATED.glob("*.py")}
    assert len(generated) == 2


def test_the_generated_code_has_every_table_of_the_schema() -> None:
    assert list(TABLES) == re.findall(r"^table (\w+) {$", SCHEMA.read_text(), re.MULTILINE)
    assert "GameTurnReady" in TABLES


# Whatever the version of flatc: it reads the schema, not our code.
@pytest.mark.parametrize("kind", KINDS)
def test_flatc_reads_what_is_sent_and_we_read_what_flatc_makes(kind: str, tmp_path: Path) -> None:
    content = payload(kind, "", 999_999_999)
    # Each field has a value of its own: none is taken for another.
    content |= {name: f"{name} 👩‍🚀 שלום" for name, value in content.items() if value == ""}
    assert flatc_reads(SCHEMA, kind, encode_payload(kind, json.dumps(content)), tmp_path) == content
    assert decode_payload(kind, flatc_makes(SCHEMA, kind, content, tmp_path)) == content


def test_a_table_that_grows_stays_readable(tmp_path: Path) -> None:
    grown = tmp_path / "grown.fbs"
    turn = "  turn: int32;\n"
    assert SCHEMA.read_text().count("table GameTurnReady {") == 1
    before, after = SCHEMA.read_text().split("table GameTurnReady {")
    grown.write_text(before + "table GameTurnReady {" + after.replace(turn, turn + "  report: string;\n  size: int32;\n", 1))
    newer = flatc_makes(grown, "game.turn.ready", TURN_READY | {"report": "long", "size": 9}, tmp_path)
    assert decode_payload("game.turn.ready", newer) == TURN_READY
    older = encode_payload("game.turn.ready", json.dumps(TURN_READY))
    assert flatc_reads(grown, "game.turn.ready", older, tmp_path) == TURN_READY | {"size": 0}


@given(st.sampled_from(KINDS), st.one_of(st.sampled_from(TEXTS), st.text(min_size=1, max_size=1000)), st.integers(0, 999_999_999))
def test_what_is_sent_is_what_was_told(kind: str, text: str, number: int) -> None:
    told = payload(kind, text, number)
    sent = encode_payload(kind, json.dumps(told | {"more": "is left out"}))
    assert decode_payload(kind, sent) == told
    assert not sent.startswith(b"{")


@given(st.text())
def test_a_kind_without_a_table_is_sent_as_json(text: str) -> None:
    told = json.dumps({"text": text}, ensure_ascii=False)
    for kind in ("test", "lobby.unheard_of", "game.turn", "np", "t", ""):
        assert encode_payload(kind, told) == told.encode()
        assert decode_payload(kind, told.encode()) == {"text": text}


def test_what_may_be_null_is_left_out() -> None:
    told = {"game_id": UUID, "inviter_user_id": None}
    assert decode_payload("lobby.invite.received", encode_payload("lobby.invite.received", json.dumps(told))) == told


@pytest.mark.parametrize(
    "misfit",
    [
        {"turn": 1},
        {"game_id": UUID},
        {"game_id": UUID, "turn": None},
        {"game_id": UUID, "turn": "1"},
        {"game_id": UUID, "turn": True},
        {"game_id": UUID, "turn": 1.0},
        {"game_id": UUID, "turn": 2**31},
        {"game_id": 1, "turn": 1},
        {"game_id": "\ud800", "turn": 1},
        {},
        [],
        None,
    ],
)
def test_what_does_not_fit_is_sent_empty_and_warned_of_once(
    misfit: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "_misfits", set())
    for _ in range(2):
        assert encode_payload("game.turn.ready", json.dumps(misfit)) == b""
    assert decode_payload("game.turn.ready", b"") is None
    [line] = caplog.records
    assert (line.levelno, vars(line)["kind"]) == (logging.WARNING, "game.turn.ready")
    assert UUID not in caplog.text


def test_a_table_that_the_reader_does_not_have_is_not_taken_for_json() -> None:
    assert decode_payload("game.turn.unheard_of", encode_payload("game.turn.ready", json.dumps(TURN_READY))) is None


def test_the_example_for_gateways_works() -> None:
    [example] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "push.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(example, scope)
    sent = encode_payload("game.turn.ready", json.dumps(TURN_READY))
    assert scope["title"]("game.turn.ready", sent) == f"Turn 7 of {UUID} is ready"
    assert scope["title"]("game.turn.ready", b"") == scope["title"]("game.started", sent) == "There is news"
