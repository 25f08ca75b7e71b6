"""What is taken of a request before anybody is asked."""

from __future__ import annotations

import io
import json
from typing import Any

import falcon
import pytest
from falcon import testing
from hypothesis import given
from hypothesis import strategies as st

from app.contract import Parameter, Schema
from app.errors import ApiError
from app.operations import (
    MAX_BODY_BYTES,
    _encode,
    _matches,
    _parameter_value,
    _query,
    check_content_type,
    parse_json,
    read_body,
)


def refusal(work: Any) -> tuple[int, str]:
    with pytest.raises(ApiError) as refused:
        work()
    return refused.value.status, refused.value.code


# -- JSON

text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_json_is_read_however_it_is_escaped(value: Any, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(text, text, st.booleans())
def test_a_nul_is_found_wherever_it_is(before: str, after: str, in_name: bool) -> None:
    whole = before + "\0" + after
    value = {whole: 1} if in_name else [[whole]]
    assert refusal(lambda: parse_json(json.dumps(value).encode())) == (400, "invalid_json")


@given(text, text)
def test_backslashes_before_u0000_are_no_nul(before: str, after: str) -> None:
    value = before + "\\u0000" + after
    assert parse_json(json.dumps(value).encode()) == value


@given(st.sampled_from(["\\ud800", "\\udfff", "\\udc00\\ud800", "a\\ud83d", "\\ude00b"]))
def test_half_a_pair_is_no_text(half: str) -> None:
    assert refusal(lambda: parse_json(f'"{half}"'.encode())) == (400, "invalid_json")


def test_a_whole_pair_is_text() -> None:
    assert parse_json(b'"\\ud83d\\ude00"') == "😀"


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"nan", b"NaN", b"-Infinity", b"\xff", b"\xef\xbb\xbf1", b"1 2", b"'a'", b"{1: 2}", b'{"a": 1,}', b"[" * 100_000],
)
def test_what_is_no_json_is_refused(raw: bytes) -> None:
    assert refusal(lambda: parse_json(raw)) == (400, "invalid_json")


# -- bodies


def http_request(body: bytes, **headers: str) -> falcon.Request:
    return falcon.Request(testing.create_environ(method="POST", body=body, headers=headers))


@pytest.mark.parametrize("size", [0, 1, MAX_BODY_BYTES])
def test_a_body_up_to_the_limit_is_read(size: int) -> None:
    assert len(read_body(http_request(b"x" * size))) == size


def test_a_larger_body_is_refused_by_what_it_says_or_by_what_it_is() -> None:
    assert refusal(lambda: read_body(http_request(b"x" * (MAX_BODY_BYTES + 1)))) == (413, "body_too_large")
    environ = testing.create_environ(method="POST", body="")
    environ["wsgi.input"] = io.BytesIO(b"x" * (MAX_BODY_BYTES + 1))
    environ.pop("CONTENT_LENGTH", None)
    assert refusal(lambda: read_body(falcon.Request(environ))) == (413, "body_too_large")


def test_a_body_that_is_shorter_than_it_says_is_refused() -> None:
    environ = testing.create_environ(method="POST", body="0123456789")
    environ["wsgi.input"] = io.BytesIO(b"01234")
    assert refusal(lambda: read_body(falcon.Request(environ))) == (400, "invalid_request")


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_an_encoded_body_is_refused(encoding: str) -> None:
    assert refusal(lambda: read_body(http_request(b"x", **{"Content-Encoding": encoding}))) == (415, "unsupported_media_type")


@pytest.mark.parametrize(
    "given_type",
    ["application/json", "Application/JSON; charset=UTF-8", 'application/json;charset="utf-8"', "application/json ;"],
)
def test_json_is_known(given_type: str) -> None:
    check_content_type(given_type)


@pytest.mark.parametrize("given_type", [None, "", "text/json", "application/json; charset=latin-1", "application/json+x", "*/*"])
def test_another_type_is_refused(given_type: str | None) -> None:
    assert refusal(lambda: check_content_type(given_type)) == (415, "unsupported_media_type")


# -- parameters


def parameter(schema: dict[str, Any], required: bool = False) -> Parameter:
    items = schema.get("items", {}).get("type", "string") if "items" in schema else None
    return Parameter("p", "query", schema.get("type", "string"), items, required, schema.get("default"), Schema(schema, {}))


INTEGER = {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}


@pytest.mark.parametrize(
    ("schema", "texts", "value"),
    [
        (INTEGER, [], b"50"),
        (INTEGER, ["7"], b"7"),
        (INTEGER, ["007"], b"7"),
        ({"type": "boolean"}, ["true"], b"true"),
        ({"type": "boolean"}, ["false"], b"false"),
        ({"type": "string"}, ["ä b"], "ä b".encode()),
        ({"type": "string"}, [""], b""),
        ({"type": "string"}, [], None),
        ({"type": "array", "items": {"type": "string"}}, ["a", 'b"\\,{}', ""], b'{"a","b\\"\\\\,{}",""}'),
        ({"type": "array", "items": {"type": "string"}}, ["NULL"], b'{"NULL"}'),
        ({"type": "array", "items": {"type": "integer"}}, ["1", "-2"], b'{"1","-2"}'),
        ({"type": "array", "items": {"type": "string"}}, [], None),
    ],
)
def test_parameters_as_postgres_takes_them(schema: dict[str, Any], texts: list[str], value: bytes | None) -> None:
    assert _parameter_value(parameter(schema), texts) == (value, [])


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        (INTEGER, ["0"]),
        (INTEGER, ["201"]),
        (INTEGER, ["1", "1"]),
        (INTEGER, [""]),
        (INTEGER, ["1.0"]),
        (INTEGER, ["+1"]),
        (INTEGER, ["1_0"]),
        (INTEGER, ["\u0661"]),
        (INTEGER, [" 1"]),
        (INTEGER, ["1\n"]),
        (INTEGER, ["9" * 19]),
        (INTEGER, ["9" * 5000]),
        ({"type": "boolean"}, ["True"]),
        ({"type": "boolean"}, ["1"]),
        ({"type": "boolean"}, [""]),
        ({"type": "string", "enum": ["a"]}, ["b"]),
        ({"type": "string"}, ["a\0b"]),
        ({"type": "string"}, ["\0"]),
        ({"type": "array", "items": {"type": "integer"}}, ["1", "x"]),
        ({"type": "array", "items": {"type": "string"}}, ["a\0"]),
        ({"type": "array", "maxItems": 1, "items": {"type": "string"}}, ["a", "b"]),
    ],
)
def test_parameters_that_do_not_fit(schema: dict[str, Any], texts: list[str]) -> None:
    _, problems = _parameter_value(parameter(schema), texts)
    assert problems
    assert all(p["path"].split(".")[0] == "p" for p in problems)


def test_a_required_parameter_that_is_missing() -> None:
    assert _parameter_value(parameter({"type": "string"}, required=True), []) == (None, [{"path": "p", "problem": "is required"}])


@given(st.lists(text, max_size=5))
def test_lists_come_back_from_postgres_as_they_were(items: list[str]) -> None:
    """An array's text form: every element quoted, quotes and backslashes escaped."""
    encoded = _encode(items)
    assert encoded is not None
    inner = encoded.decode()[1:-1]
    found: list[str] = []
    while inner:
        assert inner[0] == '"'
        inner, element = inner[1:], ""
        while inner[0] != '"':
            if inner[0] == "\\":
                inner = inner[1:]
            element, inner = element + inner[0], inner[1:]
        found.append(element)
        inner = inner[1:].removeprefix(",")
    assert found == items


def test_queries() -> None:
    assert _query("") == {}
    assert _query("a=1&b=&a=2&c") == {"a": ["1", "2"], "b": [""], "c": [""]}
    assert _query("a=%C3%A4+b%26") == {"a": ["ä b&"]}
    for wrong in ("a=%ff", "%ff=1", "&".join(f"a{n}=1" for n in range(51)), "a=%ed%a0%80"):
        assert refusal(lambda wrong=wrong: _query(wrong)) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("header", "matches"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ('"b",W/"a"', True),
        ("*", True),
        (" * ", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_if_none_match(header: str | None, matches: bool) -> None:
    assert _matches(header, '"a"') == matches
