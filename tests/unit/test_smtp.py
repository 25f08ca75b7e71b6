"""The SMTP client against real relays: what goes out, and what is made of each thing that a relay can do."""

from __future__ import annotations

import asyncio
import datetime
import email
import email.policy
import email.utils
import re
import threading
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import config as configuration
from app.config import Config
from dev.cluster import free_port
from tests.smtp_relay import Authority, FaultyRelay, Relay, Stage, Trouble
from workers import smtp
from workers.smtp import Mail, Outcome, Result, message

SENDER = "Galaxy <noreply@galaxy.example>"


_times: dict[str, str] = {}


def config_for(port: int, **variables: str) -> Config:
    """Return the configuration of a program whose relay is at a port of this machine."""
    variables = {**_times, **variables}
    return configuration.load(
        {
            "BACKEND_POSTGRES_DSN": "postgresql://nobody@localhost/none?search_path=backend",
            "BACKEND_GAME_STATE_ROOT": "/nonexistent/games",
            "BACKEND_GEOIP_DB_PATH": "/nonexistent/geo.mmdb",
            "BACKEND_RUNTIME_DRIVER": "process",
            "BACKEND_SMTP_HOST": "127.0.0.1",
            "BACKEND_SMTP_PORT": str(port),
            "BACKEND_SMTP_FROM": SENDER,
            "BACKEND_SMTP_TLS_MODE": "none",
            **{f"BACKEND_SMTP_{name.upper()}": value for name, value in variables.items()},
        }
    )


def mail(number: int = 1, **fields: str) -> Mail:
    texts = {"subject": "Your code", "body_text": "It is 123456\n", "body_html": "<p>It is <b>123456</b></p>\n"} | fields
    return Mail(delivery_id=f"0000000{number}-0000-7000-8000-000000000000", recipients=["ada@example.org"], **texts)


def send(config: Config, *mails: Mail) -> list[Result]:
    """Send mails one after the other, as one batch."""

    async def batch() -> list[Result]:
        relay = smtp.Relay(config)
        try:
            return [await relay.send(one) for one in mails]
        finally:
            await relay.quit()

    return asyncio.run(batch())


@pytest.fixture
def relay() -> Iterator[FaultyRelay]:
    with FaultyRelay() as relay:
        yield relay


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Give a mail less time than anybody should, and return it."""
    for name in ("timeout", "content_timeout"):
        monkeypatch.setitem(_times, name, "300ms")
    return 0.3


# -- what goes out


def test_a_mail_as_the_relay_gets_it(relay: FaultyRelay) -> None:
    before = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    assert send(config_for(relay.port), mail()) == [Result("sent")]
    [received] = relay.received
    assert (received.sender, received.recipients) == ("noreply@galaxy.example", ("ada@example.org",))
    headers = received.message
    assert str(headers["From"]) == SENDER
    assert str(headers["To"]) == "ada@example.org"
    assert str(headers["Subject"]) == "Your code"
    assert received.message_id == "<00000001-0000-7000-8000-000000000000@galaxy.example>"
    assert str(headers["Auto-Submitted"]) == "auto-generated"
    assert before <= email.utils.parsedate_to_datetime(str(headers["Date"])) <= datetime.datetime.now(datetime.UTC)
    assert headers.get_content_type() == "multipart/alternative"
    # The best one last (RFC 2046).
    assert [part.get_content_type() for part in headers.iter_parts()] == ["text/plain", "text/html"]
    assert received.body() == "It is 123456\n"
    assert received.body("html") == "<p>It is <b>123456</b></p>\n"


def test_several_recipients_are_in_the_envelope_and_the_header(relay: FaultyRelay) -> None:
    several = Mail("01", ["ada@example.org", "bob@example.org"], "s", "t", "h")
    assert send(config_for(relay.port), several) == [Result("sent")]
    [received] = relay.received
    assert received.recipients == ("ada@example.org", "bob@example.org")
    assert str(received.message["To"]) == "ada@example.org, bob@example.org"


def test_the_same_delivery_has_the_same_message_id() -> None:
    first, second, other = (message(mail(n), SENDER)["Message-ID"] for n in (1, 1, 2))
    assert first == second != other


def test_a_text_in_any_script_arrives_whole_over_seven_bits(relay: FaultyRelay) -> None:
    """A relay that does not offer 8BITMIME may spoil what has the eighth bit, or refuse it."""
    text, html, subject = "Grüße, Ωμέγα, 星\n", "<p>Grüße, Ωμέγα, 星</p>\n", "Grüße an 星"
    assert send(config_for(relay.port), mail(subject=subject, body_text=text, body_html=html)) == [Result("sent")]
    [received] = relay.received
    assert received.raw.isascii()
    assert max(map(len, received.raw.splitlines())) <= 998
    assert (received.body(), received.body("html"), str(received.message["Subject"])) == (text, html, subject)


@pytest.mark.parametrize("text", [".\n", "a\n.\n..\nb\n", ".\r\n.\r\nMAIL FROM:<x@y.z>\r\n", "x" * 5000 + "\n"])
def test_no_text_ends_the_mail_early(relay: FaultyRelay, text: str) -> None:
    assert send(config_for(relay.port), mail(body_text=text)) == [Result("sent")]
    [received] = relay.received
    assert received.body() == text.replace("\r\n", "\n")
    assert relay.reached["MAIL"] == 1


# -- nothing injects a header

HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]

EVIL_SUBJECTS = [
    "Hello\r\nBcc: eve@example.org",
    "Hello\nBcc: eve@example.org",
    "Hello\rBcc: eve@example.org",
    "Hello\n\nand a body",
    # Line ends for Python, though not for SMTP.
    "Hello\x0bBcc: eve@example.org",
    "Hello\x1cBcc: eve@example.org",
    "Hello\x85Bcc: eve@example.org",
    "Hello\u2028Bcc: eve@example.org",
    # A line end that is there only once the word has been decoded.
    "=?utf-8?q?Hello=0D=0ABcc:_eve@example.org?=",
    "=?utf-8?b?SGVsbG8NCkJjYzogZXZlQGV4YW1wbGUub3Jn?=",
    "a =?us-ascii?q?=0ABcc:?= =?us-ascii?q?_eve@example.org?= b",
    "=?utf-8?q?=00?=",
]


def header_lines(raw: bytes) -> list[bytes]:
    """Return the header lines as any relay reads them, continued ones with their first."""
    head = raw.partition(b"\r\n\r\n")[0].replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ")
    assert b"\0" not in head
    return [line for line in head.replace(b"\r", b"\n").split(b"\n") if line]


def assert_only_our_headers(raw: bytes) -> None:
    assert [line.partition(b":")[0].decode() for line in header_lines(raw)] == HEADERS


@pytest.mark.parametrize("subject", EVIL_SUBJECTS)
def test_a_subject_injects_no_header(subject: str) -> None:
    """And it is no reason not to send: what is in a subject may come from a person."""
    assert_only_our_headers(message(mail(subject=subject), SENDER).as_bytes())


_PIECES = st.sampled_from(["=?utf-8?q?", "=?utf-8?b?", "?=", "=0D=0A", "=0A", "DQo=", "Bcc: x@y.z", "\r\n", "\u2028", " ", "=?"])


@given(st.lists(_PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=8).map("".join))
@example("".join(("=?utf-8?q?", "=0D=0A", "Bcc: x@y.z", "?=")))
def test_no_subject_at_all_does(subject: str) -> None:
    assert_only_our_headers(message(mail(subject=subject), SENDER).as_bytes())


EVIL_ADDRESSES = [
    "eve@example.org\r\nBcc:x@example.org",
    "eve@example.org>\r\nRCPT TO:<x@example.org",
    "=?utf-8?q?=0D=0ABcc=3Ax?=@example.org",
    "=?utf-8?q?a=00?=@example.org",
    "jürgen@example.org",
    # What the standard library's parser stumbles over in its own ways.
    "eve@",
    "eve@[1.2",
    "<",
    '"',
    "@",
    "",
]


@pytest.mark.parametrize("address", EVIL_ADDRESSES)
def test_an_address_that_is_none_is_refused_for_good_and_nothing_is_sent(relay: FaultyRelay, address: str) -> None:
    evil = Mail("01", [address], "s", "t", "h")
    refused, sent = send(config_for(relay.port), evil, mail())
    assert refused.outcome == "permanent"
    assert sent == Result("sent")
    assert [m.recipients for m in relay.received] == [("ada@example.org",)]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters=" \x7f", min_codepoint=0x21), min_size=1, max_size=20))
def test_no_recipient_ends_the_program(address: str) -> None:
    """Whatever the database lets through, `send` returns; nobody listens on the port."""
    [result] = send(config_for(_nobody_listens()), Mail("01", [address], "s", "t", "h"))
    assert result.outcome in ("transient", "permanent")


def _nobody_listens() -> int:
    return 9


# -- what a relay answers

REPLIES: list[tuple[Stage, str, Outcome]] = [
    ("CONNECT", "421 4.3.2 too busy", "transient"),
    ("CONNECT", "554 5.3.2 not you", "transient"),
    ("MAIL", "451 4.3.0 try later", "transient"),
    # The sender is ours: a mistake of the configuration must not cost anybody a mail.
    ("MAIL", "550 5.7.1 this sender may not", "transient"),
    ("RCPT", "450 4.2.1 try later", "transient"),
    ("RCPT", "421 4.3.2 going down", "transient"),
    ("RCPT", "550 5.1.1 unknown", "permanent"),
    # Nothing that the recipient is the cause of.
    ("RCPT", "530 5.7.0 Authentication required", "transient"),
    ("RCPT", "554 5.7.1 Relay access denied", "transient"),
    ("RCPT", "550 relaying not permitted", "transient"),
    ("RCPT", "503 5.5.1 MAIL first", "transient"),
    ("RCPT", "554 5.7.1 blocked by policy", "permanent"),
    ("DATA", "451 4.3.0 try later", "transient"),
    ("DATA", "554 5.7.1 no", "permanent"),
    ("CONTENT", "421 4.3.2 going down", "transient"),
    ("CONTENT", "452 4.3.1 full", "transient"),
    ("CONTENT", "554 5.6.0 not this", "permanent"),
]


@pytest.mark.parametrize("stage, reply, outcome", REPLIES)
def test_a_refusal_is_told_by_its_code_and_the_next_mail_goes_out(
    relay: FaultyRelay, stage: Stage, reply: str, outcome: Outcome
) -> None:
    relay.fail(stage, reply)
    assert send(config_for(relay.port), mail(1), mail(2)) == [Result(outcome, reply), Result("sent")]
    assert [m.message_id[:9] for m in relay.received] == ["<00000002"]


def test_a_relay_that_does_not_know_ehlo_is_greeted_in_the_old_way(relay: FaultyRelay) -> None:
    relay.fail("EHLO", "502 5.5.1 what?")
    assert send(config_for(relay.port), mail()) == [Result("sent")]
    relay.fail("EHLO", "550 5.0.0 go away", "550 5.0.0 go away")
    assert send(config_for(relay.port), mail()) == [Result("transient", "550 5.0.0 go away")]


@pytest.mark.parametrize(
    "reply",
    [
        b"550-5.1.1 first line\r\n550 5.1.1 second line\r\n",
        b"550 5.1.1 <ada@example.org>: Recipient address rejected\r\n",
        b"550 5.1.1 ada@example.org unknown, says postmaster@mx.example.org\r\n",
        "550 Empfänger unbekannt\r\n".encode("latin-1"),
        b"550 bell \x07, nul \x00, escape \x1b[31m\r\n",
        b"550 " + b"x" * 2000 + b"\r\n",
        b"550\r\n",
    ],
)
def test_the_words_of_a_relay_can_be_stored_and_logged(relay: FaultyRelay, reply: bytes) -> None:
    """Postgres takes no NUL, UTF-8 no half characters, and no log an address."""
    relay.fail("RCPT", reply)
    [result] = send(config_for(relay.port), mail())
    assert result.outcome == "permanent"
    assert result.error is not None
    assert result.error.startswith("550")
    assert result.error.encode().decode().isprintable()
    assert len(result.error) <= 300
    assert "@example.org" not in result.error


@pytest.mark.parametrize("reply", [b"what?\r\n", b"\xff\xfe\r\n", b"299 maybe\r\n", b"354 go on\r\n", b"x" * 40_000])
def test_what_is_no_answer_to_a_mail_leaves_its_outcome_unknown(relay: FaultyRelay, reply: bytes) -> None:
    relay.fail("TAKEN", reply)
    first, second = send(config_for(relay.port), mail(1), mail(2))
    assert (first.outcome, second.outcome) == ("outcome_unknown", "sent")
    assert len(relay.received) == 2


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT"])
def test_what_is_no_answer_before_the_mail_is_trouble_that_passes(relay: FaultyRelay, stage: Stage) -> None:
    relay.fail(stage, b"what?\r\n", b"what?\r\n")
    relay.fail("RSET", b"what?\r\n")
    first = send(config_for(relay.port), mail(1))[0]
    assert first.outcome == "transient"
    assert relay.received == []


# -- a relay that goes away, or never comes

TROUBLES = [Trouble.CLOSE, Trouble.RESET, Trouble.STALL, Trouble.TRICKLE]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT"])
def test_trouble_before_the_mail_passes(relay: FaultyRelay, impatient: float, stage: Stage, trouble: Trouble) -> None:
    relay.fail(stage, trouble)
    first, second = send(config_for(relay.port), mail(1), mail(2))
    assert (first.outcome, second) == ("transient", Result("sent"))
    assert first.error
    assert [m.message_id[:9] for m in relay.received] == ["<00000002"]


@pytest.mark.parametrize("trouble", TROUBLES)
@pytest.mark.parametrize("stage, taken", [("DATA", 1), ("CONTENT", 1), ("TAKEN", 2)])
def test_trouble_once_the_mail_began_to_go_out_leaves_its_outcome_unknown(
    relay: FaultyRelay, impatient: float, stage: Stage, taken: int, trouble: Trouble
) -> None:
    relay.fail(stage, trouble)
    first, second = send(config_for(relay.port), mail(1), mail(2))
    assert (first.outcome, second) == ("outcome_unknown", Result("sent"))
    assert len(relay.received) == taken


@pytest.mark.parametrize("stage", ["RSET", "QUIT"])
@pytest.mark.parametrize("trouble", [Trouble.CLOSE, Trouble.RESET])
def test_trouble_after_the_mail_is_nobodys(relay: FaultyRelay, stage: Stage, trouble: Trouble) -> None:
    relay.fail("RCPT", "550 5.1.1 unknown")
    relay.always(stage, trouble)
    refused, sent = send(config_for(relay.port), mail(1), mail(2))
    assert (refused.outcome, sent) == ("permanent", Result("sent"))


def test_a_mail_takes_no_longer_than_it_may(relay: FaultyRelay, impatient: float) -> None:
    """Each answer alone comes in time, all of them together do not."""

    async def timed() -> float:
        begun = asyncio.get_running_loop().time()
        one = smtp.Relay(config_for(relay.port))
        assert (await one.send(mail())).outcome == "transient"
        return asyncio.get_running_loop().time() - begun

    relay.fail("RCPT", Trouble.TRICKLE)
    assert impatient <= asyncio.run(timed()) < impatient + 2


def test_a_relay_that_looks_into_mail_for_long_is_waited_for(relay: FaultyRelay) -> None:
    relay.fail("TAKEN", Trouble.STALL)
    config = config_for(relay.port, timeout="200ms", content_timeout="10s")
    threading.Timer(1, relay.release).start()
    assert send(config, mail()) == [Result("sent")]
    assert len(relay.received) == 1


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"host": "no-such-host.invalid"}, "gaierror"),
        ({"tls_mode": "starttls"}, "STARTTLS"),
        ({"tls_mode": "tls"}, "SSLError"),
        ({"username": "ann", "password": "barley"}, "AUTH"),
    ],
)
def test_what_is_wrong_with_a_relay_can_be_told(relay: FaultyRelay, change: dict[str, str], reason: str) -> None:
    [result] = send(config_for(relay.port, **change), mail())
    assert result.outcome == "transient"
    assert reason in str(result.error)
    assert not re.search("127[.]0[.]0[.]1|barley|ada@", str(result.error))


def test_a_relay_that_is_not_there(relay: FaultyRelay) -> None:
    config = config_for(relay.port)
    relay.stop()
    [result] = send(config, mail())
    assert result.outcome == "transient"
    assert "ConnectionRefusedError" in str(result.error)
    assert "127.0.0.1" not in str(result.error)
    relay.start()
    assert send(config, mail()) == [Result("sent")]


def test_a_name_that_nobody_has() -> None:
    [result] = send(config_for(free_port(), host="no-such-host.invalid"), mail())
    assert result.outcome == "transient"


# -- one connection for a batch


def test_a_batch_goes_over_one_connection(relay: FaultyRelay) -> None:
    relay.fail("RCPT", "550 5.1.1 unknown", "450 4.2.1 later")
    relay.fail("CONTENT", "452 4.3.1 full")
    outcomes = [r.outcome for r in send(config_for(relay.port), *map(mail, range(1, 7)))]
    assert outcomes == ["permanent", "transient", "transient", "sent", "sent", "sent"]
    assert relay.connections == 1
    assert relay.reached["QUIT"] == 1


def test_a_relay_that_takes_one_mail_per_connection(relay: FaultyRelay) -> None:
    """Many relays set a limit, and say so with 421 where the next mail begins: that is no failure of this mail."""
    config = config_for(relay.port)

    async def batch() -> list[Result]:
        one = smtp.Relay(config)
        results = [await one.send(mail(1))]
        relay.fail("MAIL", "421 4.7.0 too many mails on this connection")
        results.append(await one.send(mail(2)))
        relay.fail("MAIL", Trouble.CLOSE)
        results.append(await one.send(mail(3)))
        await one.quit()
        return results

    assert asyncio.run(batch()) == [Result("sent")] * 3
    assert relay.connections == 3


# -- TLS


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that this process trusts, and no other."""
    made = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.file))
    return made


MODES = ["starttls", "tls"]


@pytest.mark.parametrize("mode", MODES)
def test_mail_goes_encrypted_to_a_relay_that_is_trusted(authority: Authority, mode: str) -> None:
    with Relay(tls=authority.server(), is_implicit=mode == "tls") as relay:
        config = config_for(relay.port, tls_mode=mode)
        assert send(config, mail(1), mail(2)) == [Result("sent")] * 2
    assert [m.is_encrypted for m in relay.received] == [True, True]
    assert relay.connections == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_by_an_unknown_authority_is_refused(authority: Authority, tmp_path: Path, mode: str) -> None:
    stranger = Authority(tmp_path, "stranger")
    with Relay(tls=stranger.server(), is_implicit=mode == "tls") as relay:
        [result] = send(config_for(relay.port, tls_mode=mode), mail())
    assert result.outcome == "transient"
    assert relay.received == []


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_for_another_host_is_refused(authority: Authority, mode: str) -> None:
    with Relay(tls=authority.server("relay.example.org"), is_implicit=mode == "tls") as relay:
        [result] = send(config_for(relay.port, tls_mode=mode), mail())
    assert result.outcome == "transient"
    assert relay.received == []


@pytest.mark.parametrize("mode", MODES)
def test_a_certificate_that_is_over_is_refused(authority: Authority, mode: str) -> None:
    context = authority.server(lifetime=datetime.timedelta(hours=-1))
    with Relay(tls=context, is_implicit=mode == "tls") as relay:
        [result] = send(config_for(relay.port, tls_mode=mode), mail())
    assert result.outcome == "transient"
    assert relay.received == []


@pytest.mark.parametrize("login", [{}, {"username": "galaxy", "password": "open sesame"}])
@pytest.mark.parametrize("mode", MODES)
def test_a_relay_without_tls_gets_neither_mail_nor_login(
    relay: FaultyRelay, mode: str, login: dict[str, str], impatient: float
) -> None:
    """Whoever sits between may have taken the offer of STARTTLS away."""
    [result] = send(config_for(relay.port, tls_mode=mode, **login), mail())
    assert result.outcome == "transient"
    assert relay.reached["MAIL"] == 0
    assert relay.received == []


def test_mode_none_is_not_encrypted_even_if_it_could_be(authority: Authority) -> None:
    with Relay(tls=authority.server()) as relay:
        assert send(config_for(relay.port), mail()) == [Result("sent")]
    assert not relay.received[0].is_encrypted


# -- logins


@pytest.mark.parametrize("mode", ["none", *MODES])
def test_a_right_login(authority: Authority, mode: str) -> None:
    context = None if mode == "none" else authority.server()
    with Relay(tls=context, is_implicit=mode == "tls", login=("galaxy", "öpen sesame")) as relay:
        config = config_for(relay.port, tls_mode=mode, username="galaxy", password="öpen sesame")
        assert send(config, mail()) == [Result("sent")]
    assert relay.received[0].login == "galaxy"


def test_a_wrong_login_costs_nobody_a_mail_and_tells_nothing(authority: Authority) -> None:
    with Relay(tls=authority.server(), login=("galaxy", "open sesame")) as relay:
        config = config_for(relay.port, tls_mode="starttls", username="galaxy", password="open barley")
        [result] = send(config, mail())
    assert result.outcome == "transient"
    assert str(result.error).startswith("535")
    assert "barley" not in str(result.error)
    assert relay.received == []
    assert relay.refused_logins > 0


def test_a_login_that_the_relay_demands_and_we_have_not(authority: Authority) -> None:
    with Relay(tls=authority.server(), login=("galaxy", "open sesame")) as relay:
        [result] = send(config_for(relay.port, tls_mode="starttls"), mail())
    assert result.outcome == "transient"
    assert str(result.error).startswith("530")


def test_a_relay_that_takes_no_logins_gets_no_mail(relay: FaultyRelay) -> None:
    [result] = send(config_for(relay.port, username="galaxy", password="open sesame"), mail())
    assert result.outcome == "transient"
    assert relay.reached["MAIL"] == 0


# -- secrets


def test_neither_code_nor_address_is_in_a_repr_or_an_error(relay: FaultyRelay) -> None:
    relay.always("MAIL", b"550 ada@example.org says no\r\n")
    [result] = send(config_for(relay.port), mail())
    assert "ada@" not in repr(result)


def test_the_senders_name_may_be_in_any_script() -> None:
    parsed = BytesParser(policy=email.policy.default).parsebytes(message(mail(), "Galäxy <noreply@galaxy.example>").as_bytes())
    assert str(parsed["From"]) == "Galäxy <noreply@galaxy.example>"
