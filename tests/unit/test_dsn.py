"""Connection strings: what is accepted, what libpq is given, and that nothing of a bad one is told."""

from __future__ import annotations

import re
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from app import dsn

URI = "postgresql://galaxy_api@db.example:5432/galaxy"


def parameters(text: str) -> dict[str, object]:
    return dict(conninfo_to_dict(dsn.conninfo(text, application_name="test", connect_timeout="3")))


@pytest.mark.parametrize(
    "text",
    [
        f"{URI}?search_path=backend",
        f"{URI}?search_path=%62ackend",
        f"{URI}?sslmode=require&search_path=backend&connect_timeout=3",
        f"{URI}?options=-csearch_path%3Dbackend",
        f"{URI}?options=-c%20search_path%3Dbackend",
        f"{URI}?options=-c%20search_path%3Dpublic%20--search-path%3Dbackend",
        f"{URI}?options=-csearch_path%3Dpublic&search_path=backend",
        f"{URI}?ssl=true&search_path=backend",
        "postgres://galaxy_api@/galaxy?host=/var/run/postgresql&search_path=backend",
        "postgresql://u:p?x=1@h/db?search_path=backend",
        "postgresql://u:p%40%2F@[::1]:5432/db?search_path=backend",
        "postgresql://a:5432,b:5433/db?search_path=backend",
        "postgresql://a,b:5433/db?search_path=backend",
        "host=h user=u dbname=db options='-csearch_path=backend'",
        "host=h password='with space' options='-c search_path=backend'",
        "host=a,b port=5432 options=-csearch_path=backend",
    ],
)
def test_accepted_forms_pin_the_search_path(text: str) -> None:
    assert dsn.check(text) == []
    assert "search_path" not in parameters(text)
    assert re.search(r"search[_-]path=backend$", str(parameters(text)["options"]))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "does not pin the search path"),
        (URI, "does not pin the search path"),
        (f"{URI}?options=-cwork_mem%3D1MB", "does not pin the search path"),
        ("host=h options='-c search_path'", "does not pin the search path"),
        (f"{URI}?search_path=public", "pins another search path"),
        (f"{URI}?search_path=backend,public", "pins another search path"),
        (f"{URI}?search_path=", "pins another search path"),
        (f"{URI}?options=-csearch_path%3Dbackend%20-csearch_path%3Dpublic", "pins another search path"),
        (f"{URI}?search_path=backend&pool_max_conns=9", "pool_max_conns"),
        (f"{URI}?pool_max_conns=9&search_path=backend&sslmod=on", "pool_max_conns, number 3"),
        (f"{URI}?search_path=backend&", "number 2"),
        ("host=h search_path=backend", "options='-csearch_path=backend'"),
        ("mysql://u@h/db?search_path=backend", "neither a URI"),
        ("postgresql://h:abc/db?search_path=backend", "port"),
        ("postgresql://h:0/db?search_path=backend", "port"),
        ("postgresql://h:65536/db?search_path=backend", "port"),
        ("host=a,b,c port=1,2 options=-csearch_path=backend", "2 ports for 3 hosts"),
        (f"{URI}?search_path=backend%00", "zero byte"),
        ("postgresql://u:%zz@h/db?search_path=backend", "percent-encoded"),
        ("postgresql://u:\udcff@h/db?search_path=backend", "percent-encoded"),
    ],
)
def test_refused_forms_say_why(text: str, problem: str) -> None:
    assert len(dsn.check(text)) == 1
    assert problem in dsn.check(text)[0]


def test_several_problems_of_one_string_are_told_together() -> None:
    problems = dsn.check("postgresql://a:1,b:2,c:x/db?host=h")
    assert [problem.split()[0] for problem in problems] == ["does", "has", "has"]


@pytest.mark.parametrize("password", ["hunter2", "hun/ter2", "hun@ter2", "hun?ter2", "hun ter2", "hun%ter2", "hun&ter2"])
@pytest.mark.parametrize(
    "form",
    [
        "postgresql://u:{}@h/db",
        "postgresql://u:{}@h/db?search_path=public",
        "postgresql://u:{}@h:x/db?pool_max_conns=1",
        "postgresql://h/db?password={}",
        "postgresql://h/db?password={}&foo=1",
        "host=h password={}",
        "host=h password={} foo=1",
        "host=h password='{}",
        "{}",
    ],
)
def test_no_part_of_a_password_is_told(form: str, password: str) -> None:
    text = form.format(password)
    told = " ".join(dsn.check(text))
    try:
        dsn.conninfo(text, application_name="test")
    except dsn.DsnError:
        told += traceback.format_exc()  # libpq's message quotes the string, and would be in a chained trace
    assert "hun" not in told
    assert "ter2" not in told


def test_names_and_parameters_are_set() -> None:
    found = parameters(f"{URI}?search_path=backend&application_name=psql&connect_timeout=9")
    assert found["application_name"] == "test"
    assert found["connect_timeout"] == "3"
    assert (found["user"], found["host"], found["port"]) == ("galaxy_api", "db.example", "5432")


def test_options_of_every_origin_are_kept_and_settings_come_last() -> None:
    text = dsn.conninfo(
        f"{URI}?options=-cwork_mem%3D1MB&search_path=backend",
        application_name="test",
        settings={"backend.challenge_ttl": "600"},
        options="-c jit=off",
    )
    assert conninfo_to_dict(text)["options"] == ("-cwork_mem=1MB -c jit=off -c search_path=backend -c backend.challenge_ttl=600")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_setting_survives_the_servers_splitting(value: str) -> None:
    text = dsn.conninfo(URI, application_name="test", settings={"backend.a": value, "backend.b": "1"})
    options = str(conninfo_to_dict(text)["options"])
    # As pg_split_opts reads it: white space ends a word unless a backslash comes before.
    words = [re.sub(r"\\(.)", r"\1", w, flags=re.DOTALL) for w in re.findall(r"(?:\\[\s\S]|[^\\ \t\n\r\f\v])+", options)]
    assert words == ["-c", f"backend.a={value}", "-c", "backend.b=1"]


@pytest.mark.parametrize("name, value", [("a b", "1"), ("a=b", "1"), ("", "1"), ("-c", "1"), ("backend.a", "\0")])
def test_a_setting_that_cannot_be_sent_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="not a setting"):
        dsn.conninfo(URI, application_name="test", settings={name: value})


@pytest.mark.parametrize(
    "text, expected",
    [
        (URI, None),
        ("postgresql://a:5432,b:5433/db", "read-write"),
        ("host=a,b", "read-write"),
        ("hostaddr=10.0.0.1,10.0.0.2", "read-write"),
        ("postgresql://a,b/db?target_session_attrs=any", "any"),
    ],
)
def test_of_several_hosts_the_writable_one_is_looked_for(text: str, expected: str | None) -> None:
    assert parameters(text).get("target_session_attrs") == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        (f"{URI}?search_path=backend", "postgresql://other@db.example:5432/galaxy?search_path=backend"),
        ("postgres://u:p@a,b/db", "postgres://other@a,b/db"),
        ("postgres://a/db?user=u&sslmode=require&password=p", "postgres://other@a/db?sslmode=require"),
        ("postgres://?host=/run", "postgres://other@?host=/run"),
        ("host=h user=u password=p", "user=other host=h"),
    ],
)
def test_another_login_replaces_user_and_password(text: str, expected: str) -> None:
    assert dsn.with_login(text, "other") == expected
    assert parameters(expected)["user"] == "other"


def test_a_login_is_escaped() -> None:
    assert parameters(dsn.with_login(URI, "a@b/c d"))["user"] == "a@b/c d"
    assert parameters(dsn.with_login("host=h", "it's"))["user"] == "it's"


def test_a_login_for_a_broken_string_is_refused() -> None:
    with pytest.raises(dsn.DsnError):
        dsn.with_login("garbage", "other")
