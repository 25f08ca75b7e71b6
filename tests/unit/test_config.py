"""The environment: every variable, every problem at once, and no secret told."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import config
from app.config import Address, Config, ConfigError, Secret, load

ROOT = Path(__file__).parents[2]

REQUIRED = {
    "BACKEND_POSTGRES_DSN": "postgresql://galaxy_api@localhost/galaxy?search_path=backend",
    "BACKEND_SMTP_HOST": "smtp.example.org",
    "BACKEND_SMTP_FROM": "noreply@example.org",
    "BACKEND_DOCKER_NETWORK": "galaxy",
    "BACKEND_GAME_STATE_ROOT": "/var/lib/galaxy/games",
    "BACKEND_GEOIP_DB_PATH": "/var/lib/galaxy/geo.mmdb",
}

# Every variable with the default that is promised for it; None where it is computed or there is none.
PROMISED = {
    "HTTP_LISTEN_ADDR": ":8080",
    "HTTP_READ_TIMEOUT": "30s",
    "HTTP_WRITE_TIMEOUT": "30s",
    "HTTP_SHUTDOWN_TIMEOUT": "15s",
    "HTTP_WORKERS": None,
    "HTTP_THREADS": None,
    "HTTP_TRUSTED_PROXIES": "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7",
    "INTERNAL_TOKEN": None,
    "SHUTDOWN_TIMEOUT": "30s",
    "GRPC_PUSH_LISTEN_ADDR": ":8081",
    "GRPC_PUSH_SHUTDOWN_TIMEOUT": "10s",
    "GRPC_PUSH_TLS_CERT": None,
    "GRPC_PUSH_TLS_KEY": None,
    "GRPC_PUSH_TLS_CLIENT_CA": None,
    "LOGGING_LEVEL": "info",
    "POSTGRES_DSN": None,
    "POSTGRES_DSN_API": None,
    "POSTGRES_DSN_PUSH": None,
    "POSTGRES_DSN_WORKER": None,
    "POSTGRES_DSN_DEPLOY": None,
    "POSTGRES_LISTEN_DSN": None,
    "POSTGRES_CONN_MAX_LIFETIME": "30m",
    "POSTGRES_MAX_CONNS": "25",
    "POSTGRES_MIN_CONNS": "2",
    "POSTGRES_OPERATION_TIMEOUT": "5s",
    "SMTP_HOST": None,
    "SMTP_FROM": None,
    "SMTP_PORT": "587",
    "SMTP_USERNAME": None,
    "SMTP_PASSWORD": None,
    "SMTP_TLS_MODE": "starttls",
    "SMTP_TIMEOUT": "15s",
    "SMTP_CONTENT_TIMEOUT": "2m",
    "MAIL_WORKER_INTERVAL": "2s",
    "MAIL_MAX_ATTEMPTS": "8",
    "RUNTIME_DRIVER": "docker",
    "DOCKER_HOST": "unix:///var/run/docker.sock",
    "DOCKER_NETWORK": None,
    "GAME_STATE_ROOT": None,
    "GAME_STATE_SHARED": "false",
    "ADMIN_BOOTSTRAP_USER": None,
    "ADMIN_BOOTSTRAP_PASSWORD": None,
    "GEOIP_DB_PATH": None,
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_PROTOCOL": "grpc",
    "OTEL_ENDPOINT": None,
    "OTEL_PROMETHEUS_LISTEN_ADDR": ":9100",
    "SERVICE_NAME": "galaxy-backend",
    "FRESHNESS_WINDOW": "5m",
    "AUTH_CHALLENGE_TTL": "10m",
    "AUTH_CHALLENGE_MAX_ATTEMPTS": "5",
    "AUTH_CHALLENGE_THROTTLE_WINDOW": "60s",
    "AUTH_CHALLENGE_THROTTLE_MAX": "3",
    "AUTH_USERNAME_MAX_RETRIES": "10",
    "AUTH_PEPPER": None,
    "LOBBY_SWEEPER_INTERVAL": "60s",
    "LOBBY_PENDING_REGISTRATION_TTL": "720h",
    "LOBBY_INVITE_DEFAULT_TTL": "168h",
    "ENGINE_CALL_TIMEOUT": "60s",
    "ENGINE_PROBE_TIMEOUT": "5s",
    "RUNTIME_WORKER_POOL_SIZE": "4",
    "RUNTIME_JOB_QUEUE_SIZE": "64",
    "RUNTIME_RECONCILE_INTERVAL": "60s",
    "RUNTIME_IMAGE_PULL_POLICY": "if_missing",
    "RUNTIME_CONTAINER_LOG_DRIVER": "json-file",
    "RUNTIME_CONTAINER_LOG_OPTS": None,
    "RUNTIME_CONTAINER_CPU_QUOTA": "2.0",
    "RUNTIME_CONTAINER_MEMORY": "512m",
    "RUNTIME_CONTAINER_PIDS_LIMIT": "256",
    "RUNTIME_CONTAINER_STATE_MOUNT": "/var/lib/galaxy-game",
    "RUNTIME_STOP_GRACE_PERIOD": "10s",
    "STACK_LABEL": None,
    "NOTIFICATION_ADMIN_EMAIL": None,
    "NOTIFICATION_WORKER_INTERVAL": "5s",
    "NOTIFICATION_MAX_ATTEMPTS": "8",
    "DIPLOMAIL_MAX_BODY_BYTES": "4096",
    "DIPLOMAIL_MAX_SUBJECT_BYTES": "256",
    "DIPLOMAIL_TRANSLATOR_URL": None,
    "DIPLOMAIL_TRANSLATOR_TIMEOUT": "10s",
    "DIPLOMAIL_TRANSLATOR_MAX_ATTEMPTS": "5",
    "DIPLOMAIL_WORKER_INTERVAL": "2s",
    "CORS_ALLOWED_ORIGINS": None,
    "DEVELOPMENT": "false",
}


def loaded(**more: str) -> Config:
    """Load the required variables and `more`, named without the prefix."""
    return load(REQUIRED | {f"BACKEND_{name}": text for name, text in more.items()})


def problems(**more: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(**more)
    return caught.value.problems


def problem(**more: str) -> str:
    (only,) = problems(**more)
    return only


# The variables, and the files printed from them.


def test_the_variables_are_those_promised() -> None:
    assert {field.name.upper() for field in dataclasses.fields(Config)} == set(PROMISED)


def test_every_variable_has_a_sentence() -> None:
    for field in dataclasses.fields(Config):
        assert re.fullmatch(r"[A-Z].*[^.]\.", field.metadata["variable"].about), field.name


@pytest.mark.parametrize("name, default", PROMISED.items())
def test_every_variable_is_documented_with_its_default(name: str, default: str | None) -> None:
    rows = [row for row in config.markdown().splitlines() if row.startswith(f"| `BACKEND_{name}` |")]
    assert len(rows) == 1
    assert len(re.findall(r"(?<!\\)\|", rows[0])) == 5
    if default is not None:
        assert f"| `{default}` |" in rows[0]
    assert re.search(f"^#?BACKEND_{name}={re.escape(default or '')}", config.env_example(), re.MULTILINE)


@pytest.mark.parametrize("which, path", [("markdown", "docs/configuration.md"), ("env", ".env.example")], ids=["markdown", "env"])
def test_the_printed_files_are_up_to_date(which: str, path: str) -> None:
    printed = subprocess.run([sys.executable, "-m", "app.config", which], cwd=ROOT, capture_output=True, check=True).stdout
    assert (ROOT / path).read_bytes() == printed, f"run: python -m app.config {which} > {path}"


def test_the_printer_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert config.main([]) == 2
    assert config.main(["html"]) == 2
    assert "usage: python -m app.config markdown|env" in capsys.readouterr().err


def test_the_example_is_a_good_environment() -> None:
    assert load(config.read_env_file(ROOT / ".env.example")).docker_network == "galaxy"


def test_the_defaults_written_out_change_nothing() -> None:
    written = {name: text for name, text in PROMISED.items() if text is not None}
    assert loaded(**written) == loaded()


# What is loaded.


def test_values_have_their_types() -> None:
    got = loaded(
        HTTP_LISTEN_ADDR="[::1]:80",
        HTTP_TRUSTED_PROXIES="10.0.0.0/8, 2001:db8::1",
        HTTP_READ_TIMEOUT="250ms",
        RUNTIME_CONTAINER_MEMORY="2G",
        RUNTIME_CONTAINER_LOG_OPTS="max-size=10m,tag={{.Name}}=x",
        RUNTIME_CONTAINER_CPU_QUOTA="0.5",
        CORS_ALLOWED_ORIGINS="http://localhost:3000,https://Example.org",
        SMTP_FROM="Galaxy <noreply@example.org>",
        DEVELOPMENT="1",
        AUTH_PEPPER="pepper",
    )
    assert got.http_listen_addr == Address("::1", 80)
    assert str(got.http_listen_addr) == "[::1]:80"
    assert str(got.grpc_push_listen_addr) == ":8081"
    assert got.http_trusted_proxies == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("2001:db8::1/128"),
    )
    assert got.http_read_timeout == 0.25
    assert got.lobby_pending_registration_ttl == 30 * 24 * 3600.0
    assert got.runtime_container_memory == 2 * 1024**3
    assert dict(got.runtime_container_log_opts) == {"max-size": "10m", "tag": "{{.Name}}=x"}
    assert got.runtime_container_cpu_quota == 0.5
    assert got.cors_allowed_origins == ("http://localhost:3000", "https://example.org")
    assert got.smtp_from == "Galaxy <noreply@example.org>"
    assert got.development is True
    assert got.auth_pepper == "pepper"
    assert got.game_state_root == Path("/var/lib/galaxy/games")
    assert got.otel_endpoint is None


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded().http_workers = 3  # type: ignore[misc]
    assert not hasattr(loaded(), "__dict__")


def test_an_empty_value_counts_as_none() -> None:
    assert loaded(SMTP_PORT="", AUTH_PEPPER="", NO_SUCH_THING="") == loaded()
    assert problem(SMTP_HOST="") == "BACKEND_SMTP_HOST is required"


def test_nobody_may_be_trusted() -> None:
    assert loaded(HTTP_TRUSTED_PROXIES="none").http_trusted_proxies == ()


def test_variables_of_others_are_ignored() -> None:
    assert load(REQUIRED | {"HOME": "/root", "XBACKEND_A": "1"}) == loaded()


# Problems.


def test_all_problems_are_told_at_once_each_with_its_variable() -> None:
    with pytest.raises(ConfigError) as caught:
        load({"BACKEND_HTTP_READ_TIMEOUT": "30", "BACKEND_SMTP_PORT": "x", "BACKEND_SMTP_PROT": "25"})
    assert [text.split()[0] for text in caught.value.problems] == [
        "BACKEND_HTTP_READ_TIMEOUT",
        "BACKEND_POSTGRES_DSN",
        "BACKEND_SMTP_HOST",
        "BACKEND_SMTP_FROM",
        "BACKEND_SMTP_PORT",
        "BACKEND_DOCKER_NETWORK",
        "BACKEND_GAME_STATE_ROOT",
        "BACKEND_GEOIP_DB_PATH",
        "BACKEND_SMTP_PROT",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("HTTP_LISTEN_ADR", "HTTP_LISTEN_ADDR"),
        ("AUTH_PEPER", "AUTH_PEPPER"),
        ("Smtp_Host", "SMTP_HOST"),
        ("SMTP_PASSWORT", "SMTP_PASSWORD"),
    ],
)
def test_an_unknown_name_is_a_problem_and_the_nearest_is_told(name: str, nearest: str) -> None:
    told = problem(**{name: "hunter2"})
    assert told.startswith(f"BACKEND_{name} is not a variable of ours; the nearest is BACKEND_")
    if name == name.upper():
        assert told.endswith(f"BACKEND_{nearest}")
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "name, text",
    [
        *[("HTTP_READ_TIMEOUT", text) for text in ("30", "-5s", "+5s", "5 s", "s", "1d", "1h-5m")],
        *[("HTTP_READ_TIMEOUT", text) for text in (".s", "5S", "0", "11m")],
        *[("HTTP_READ_TIMEOUT", text) for text in ("1e3s", "٣s", "5s\n", "9" * 70 + "s", "1_0s", "99ms")],
        *[("SMTP_PORT", text) for text in ("0", "65536", "1_0", " 25", "+25", "２５", "2.5", "9" * 5000)],
        *[("HTTP_LISTEN_ADDR", text) for text in ("8080", "localhost", ":", ":http", ":65536", "::1:80")],
        *[("HTTP_LISTEN_ADDR", text) for text in ("[x]:80", "[1::2::3]:1")],
        *[("RUNTIME_CONTAINER_CPU_QUOTA", text) for text in ("0", "nan", "inf", "-1", "1e1", "2000")],
        *[("RUNTIME_CONTAINER_MEMORY", text) for text in ("512x", "1m", "1.5g", "m", "99t")],
        *[("HTTP_TRUSTED_PROXIES", text) for text in ("10.0.0.1/8", "10.0.0.0/8,", "localhost", "none,::1")],
        *[("CORS_ALLOWED_ORIGINS", text) for text in ("*", "localhost", "http://a/", "http://a,,http://b")],
        *[("SMTP_FROM", text) for text in ("nobody", "a@b, c@d", "A <a@b> B", "a b@c", "a@b\r\nBcc: c@d")],
        ("NOTIFICATION_ADMIN_EMAIL", "Admin <a@b>"),
        ("SMTP_HOST", "a b"),
        ("SMTP_TLS_MODE", "STARTTLS"),
        ("LOGGING_LEVEL", "trace"),
        ("RUNTIME_DRIVER", "podman"),
        ("DEVELOPMENT", "yes"),
        ("DOCKER_HOST", "/var/run/docker.sock"),
        ("DOCKER_NETWORK", " galaxy"),
        ("GAME_STATE_ROOT", "games"),
        ("GAME_STATE_ROOT", "/"),
        ("RUNTIME_CONTAINER_STATE_MOUNT", "state"),
        ("RUNTIME_CONTAINER_LOG_DRIVER", "json file"),
        ("HTTP_WORKERS", "0"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_and_shown_on_one_line(name: str, text: str) -> None:
    told = [p for p in problems(**{name: text}) if p.startswith(f"BACKEND_{name} ")]
    assert len(told) == 1
    assert "\n" not in told[0]
    assert len(told[0]) < 300
    if text.isprintable():
        assert repr(text[:80]) in told[0]


@pytest.mark.parametrize(
    "name, text",
    [
        *[("DIPLOMAIL_TRANSLATOR_URL", text) for text in ("hunter2", "ftp://hunter2", "http://u:hunter2@h")],
        ("DIPLOMAIL_TRANSLATOR_URL", "http://h/?k=hunter2"),
        ("OTEL_ENDPOINT", "http://hunter2:x"),
        ("OTEL_ENDPOINT", "http://hunter2:70000"),
        ("OTEL_ENDPOINT", "http://[hunter2"),
        ("INTERNAL_TOKEN", "hunter2 with a space"),
        ("INTERNAL_TOKEN", "hunter2é"),
        ("AUTH_PEPPER", "hunter2\n"),
        ("SMTP_PASSWORD", "hunter2\n"),
        ("ADMIN_BOOTSTRAP_PASSWORD", "hunter2" * 11),
        ("RUNTIME_CONTAINER_LOG_OPTS", "hunter2"),
        ("RUNTIME_CONTAINER_LOG_OPTS", "token=hunter2,token=b"),
        ("RUNTIME_CONTAINER_LOG_OPTS", "=hunter2"),
        *[(name, "postgresql://u:hunter2@h/db") for name in PROMISED if "DSN" in name],
        ("POSTGRES_DSN", "hunter2"),
        ("POSTGRES_DSN", "postgresql://u:hun/hunter2@h/db?search_path=backend"),
    ],
)  # fmt: skip
def test_a_bad_secret_is_refused_and_not_shown(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**{name: text})
    assert any(p.startswith(f"BACKEND_{name} ") for p in caught.value.problems)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value)


@pytest.mark.parametrize(
    "more, told",
    [
        ({"DOCKER_NETWORK": "", "RUNTIME_DRIVER": "docker"}, "DOCKER_NETWORK"),
        ({"DOCKER_NETWORK": "", "RUNTIME_DRIVER": "swarm"}, "DOCKER_NETWORK"),
        ({"ADMIN_BOOTSTRAP_USER": "root"}, "ADMIN_BOOTSTRAP_PASSWORD"),
        ({"GRPC_PUSH_TLS_CERT": "/c"}, "GRPC_PUSH_TLS_KEY"),
        ({"GRPC_PUSH_TLS_KEY": "/k"}, "GRPC_PUSH_TLS_CERT"),
        ({"SMTP_USERNAME": "u"}, "SMTP_PASSWORD"),
        ({"SMTP_PASSWORD": "p"}, "SMTP_USERNAME"),
        ({"POSTGRES_MIN_CONNS": "26"}, "POSTGRES_MIN_CONNS"),
        ({"POSTGRES_MIN_CONNS": "3", "POSTGRES_MAX_CONNS": "2"}, "POSTGRES_MIN_CONNS"),
        ({"HTTP_SHUTDOWN_TIMEOUT": "31s"}, "HTTP_SHUTDOWN_TIMEOUT"),
        ({"GRPC_PUSH_SHUTDOWN_TIMEOUT": "6s", "SHUTDOWN_TIMEOUT": "5s"}, "GRPC_PUSH_SHUTDOWN_TIMEOUT"),
        ({"HTTP_WORKERS": "5", "HTTP_THREADS": "6"}, "HTTP_WORKERS"),
        ({"HTTP_THREADS": "26"}, "HTTP_THREADS"),
        ({"HTTP_WORKERS": "9", "POSTGRES_MAX_CONNS": "8"}, "HTTP_WORKERS"),
    ],
)
def test_variables_that_do_not_go_together(more: dict[str, str], told: str) -> None:
    assert problem(**more).startswith(f"BACKEND_{told} ")


def test_a_client_authority_needs_certificate_and_key() -> None:
    assert problem(GRPC_PUSH_TLS_CLIENT_CA="/ca").startswith("BACKEND_GRPC_PUSH_TLS_CERT is required with")
    good = loaded(GRPC_PUSH_TLS_CLIENT_CA="/ca", GRPC_PUSH_TLS_CERT="/c", GRPC_PUSH_TLS_KEY="/k")
    assert good.grpc_push_tls_client_ca == Path("/ca")


def test_child_processes_need_no_network() -> None:
    assert loaded(RUNTIME_DRIVER="process", DOCKER_NETWORK="").docker_network is None


def test_a_bad_value_is_not_judged_twice() -> None:
    assert len(problems(POSTGRES_MAX_CONNS="x", HTTP_WORKERS="200", POSTGRES_MIN_CONNS="900")) == 1
    assert len(problems(RUNTIME_DRIVER="x", DOCKER_NETWORK="")) == 1
    assert len(problems(GRPC_PUSH_TLS_KEY="/k", GRPC_PUSH_TLS_CERT=" ")) == 1
    assert len(problems(POSTGRES_DSN="x")) == 1


# Defaults that depend on others.


def test_each_program_has_the_common_connection_unless_it_has_its_own() -> None:
    own = REQUIRED["BACKEND_POSTGRES_DSN"].replace("galaxy_api", "galaxy_push")
    got = loaded(POSTGRES_DSN_PUSH=own)
    assert got.postgres_dsn_push == got.postgres_listen_dsn == own
    common = REQUIRED["BACKEND_POSTGRES_DSN"]
    assert got.postgres_dsn == got.postgres_dsn_api == got.postgres_dsn_worker == got.postgres_dsn_deploy == common
    assert loaded(POSTGRES_LISTEN_DSN=own).postgres_listen_dsn == own


def test_the_common_connection_is_not_needed_when_each_program_has_its_own() -> None:
    common = REQUIRED["BACKEND_POSTGRES_DSN"]
    three = {"POSTGRES_DSN_API": common, "POSTGRES_DSN_PUSH": common, "POSTGRES_DSN_WORKER": common}
    got = loaded(POSTGRES_DSN="", **three)
    assert got.postgres_dsn is None
    assert got.postgres_dsn_deploy is None
    assert got.postgres_listen_dsn == common
    for name in three:
        assert problem(POSTGRES_DSN="", **three | {name: ""}).startswith("BACKEND_POSTGRES_DSN is required")


def test_a_default_is_lowered_to_its_limit() -> None:
    got = loaded(SHUTDOWN_TIMEOUT="3s", POSTGRES_MAX_CONNS="1")
    assert (got.http_shutdown_timeout, got.grpc_push_shutdown_timeout) == (3.0, 3.0)
    assert got.postgres_min_conns == 1


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.mark.parametrize(
    "more, workers, threads",
    [
        ({"POSTGRES_MAX_CONNS": "1000"}, max(2, cores()), 4),
        ({"POSTGRES_MAX_CONNS": "1"}, 1, 1),
        ({"POSTGRES_MAX_CONNS": "2"}, 2, 1),
        ({"HTTP_WORKERS": "3", "POSTGRES_MAX_CONNS": "8"}, 3, 2),
        ({"HTTP_THREADS": "5", "POSTGRES_MAX_CONNS": "8"}, 1, 5),
        ({"HTTP_WORKERS": "5", "HTTP_THREADS": "5"}, 5, 5),
    ],
)
def test_workers_and_threads_fit_the_connections(more: dict[str, str], workers: int, threads: int) -> None:
    got = loaded(**more)
    assert (got.http_workers, got.http_threads) == (workers, threads)


@given(st.integers(1, 1000))
def test_the_computed_workers_and_threads_always_fit(most: int) -> None:
    got = loaded(POSTGRES_MAX_CONNS=str(most))
    assert 1 <= got.http_workers * got.http_threads <= most


# Durations.


@pytest.mark.parametrize(
    "text, seconds",
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("250ms", 0.25),
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("720h", 2592000.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("100us", 0.0001),
        ("100µs", 0.0001),
        ("1h0m0.5s", 3600.5),
        ("5m1h", 3900.0),
        ("1ns", 1e-9),
    ],
)
def test_durations_are_read_as_go_reads_them(text: str, seconds: float) -> None:
    assert config.parse_duration(text) == seconds


def go_writes(nanoseconds: int) -> str:
    """Write a duration as Go's Duration.String does from a second up."""
    seconds, rest = divmod(nanoseconds, 10**9)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    fraction = f".{rest:09}".rstrip("0") if rest else ""
    return f"{hours}h{minutes}m{seconds}{fraction}s"


@given(st.integers(10**9, 2**53))
def test_what_go_writes_is_read_back(nanoseconds: int) -> None:
    assert round(config.parse_duration(go_writes(nanoseconds)) * 10**9) == pytest.approx(nanoseconds, abs=2)


@given(st.text(max_size=12))
def test_any_other_text_is_a_value_error(text: str) -> None:
    try:
        assert config.parse_duration(text) >= 0
    except ValueError as error:
        assert "unit" in str(error)  # noqa: PT017


# Secrets.


def test_no_secret_is_in_the_repr() -> None:
    secrets = {
        "POSTGRES_DSN": "postgresql://u:hunter2@h/db?search_path=backend",
        "POSTGRES_LISTEN_DSN": "host=h password=hunter2 options=-csearch_path=backend",
        "INTERNAL_TOKEN": "hunter2",
        "AUTH_PEPPER": "hunter2",
        "SMTP_USERNAME": "u",
        "SMTP_PASSWORD": "hunter2",
        "ADMIN_BOOTSTRAP_USER": "root",
        "ADMIN_BOOTSTRAP_PASSWORD": "hunter2",
        "RUNTIME_CONTAINER_LOG_OPTS": "splunk-token=hunter2",
    }
    got = loaded(**secrets)
    assert "hunter2" not in repr(got)
    assert "hunter2" not in f"{got}"
    assert "hunter2" not in repr(dataclasses.asdict(got))
    assert repr(got).count("***") == 11  # six connection strings, five others
    assert got.smtp_password == "hunter2"


def test_a_secret_stays_one_when_copied() -> None:
    assert repr(pickle.loads(pickle.dumps([Secret("a")]))) == "[***]"


# What starts anyway, and what the database is told.


def test_warnings_name_their_variables() -> None:
    assert [text.split()[0] for text in config.warnings(loaded())] == [
        "BACKEND_AUTH_PEPPER",
        "BACKEND_INTERNAL_TOKEN",
    ]
    assert config.warnings(loaded(AUTH_PEPPER="a", INTERNAL_TOKEN="b")) == []
    others = loaded(
        AUTH_PEPPER="a",
        INTERNAL_TOKEN="b",
        SMTP_TLS_MODE="none",
        SMTP_USERNAME="u",
        SMTP_PASSWORD="hunter2",
        ADMIN_BOOTSTRAP_PASSWORD="hunter2",
        DEVELOPMENT="true",
    )
    assert [text.split()[0] for text in config.warnings(others)] == [
        "BACKEND_SMTP_TLS_MODE",
        "BACKEND_ADMIN_BOOTSTRAP_PASSWORD",
        "BACKEND_DEVELOPMENT",
    ]
    assert "hunter2" not in str(config.warnings(others))


def test_the_database_is_told_its_rules() -> None:
    assert config.database_settings(loaded(ENGINE_CALL_TIMEOUT="1.25s")) == {
        "backend.challenge_ttl": "600",
        "backend.challenge_max_attempts": "5",
        "backend.challenge_throttle_window": "60",
        "backend.challenge_throttle_max": "3",
        "backend.username_max_retries": "10",
        "backend.mail_max_attempts": "8",
        "backend.freshness_window": "300",
        "backend.pending_registration_ttl": "2592000",
        "backend.invite_default_ttl": "604800",
        "backend.notification_max_attempts": "8",
        "backend.diplomail_max_body_bytes": "4096",
        "backend.diplomail_max_subject_bytes": "256",
        "backend.diplomail_translator": "0",
        "backend.diplomail_translator_max_attempts": "5",
        "backend.engine_call_timeout": "1.25",
        "backend.runtime_job_queue_size": "64",
    }


def test_the_database_is_told_whether_there_is_a_translator() -> None:
    told = config.database_settings(loaded(DIPLOMAIL_TRANSLATOR_URL="http://translator:5000"))
    assert told["backend.diplomail_translator"] == "1"


# The .env file.


def test_an_env_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(
        "# a comment\n\n A=1\nB = two words \nC='single # \" quoted'\nD=\"double ' quoted \"\nE=\nF=''\n"
        "G=postgresql://u@h/db?a=b#c\nA=2\n"
    )
    assert config.read_env_file(path) == {
        "A": "2",
        "B": "two words",
        "C": 'single # " quoted',
        "D": "double ' quoted ",
        "E": "",
        "F": "",
        "G": "postgresql://u@h/db?a=b#c",
    }


@pytest.mark.parametrize("line", ["hunter2", "=hunter2", "A B=hunter2", "A='hunter2", 'A="hunter2" # no', "1A=hunter2"])
def test_a_bad_line_of_an_env_file_is_told_by_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / ".env"
    path.write_text(f"A=1\n{line}\n")
    with pytest.raises(ValueError, match=r"line 2: not KEY=VALUE") as caught:
        config.read_env_file(path)
    assert "hunter2" not in str(caught.value)
