"""The mail catcher, over real SMTP and HTTP."""

import json
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from dev import mail_catcher
from dev.mail_catcher import MailCatcher

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def catcher() -> Iterator[MailCatcher]:
    with MailCatcher() as catcher:
        yield catcher


def letter(subject: str = "Your code", text: str = "123456\n", html: str | None = None) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Galaxy <galaxy@example.com>"
    message["To"] = "ada@example.com"
    message["Subject"] = subject
    message["Message-ID"] = "<one@example.com>"
    message.set_content(text)
    if html is not None:
        message.add_alternative(html, subtype="html")
    return message


def send(catcher: MailCatcher, message: EmailMessage, *to: str) -> None:
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port) as client:
        client.send_message(message, "galaxy@example.com", to)


def get(catcher: MailCatcher, **parameters: str) -> list[dict[str, str | None]]:
    answer = httpx.get(f"{catcher.url}/messages", params=parameters)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    items: list[dict[str, str | None]] = answer.json()["items"]
    return items


def test_a_mail_is_shown_as_it_was_sent(catcher: MailCatcher) -> None:
    send(catcher, letter("Grüße", "Ihr Code: 123456\n", "<b>123456</b>\n"), "ada@example.com")
    [item] = get(catcher, to="ada@example.com")
    assert item.pop("received_at")
    assert item == {
        "to": "ada@example.com",
        "from": "galaxy@example.com",
        "subject": "Grüße",
        "text": "Ihr Code: 123456\n",
        "html": "<b>123456</b>\n",
        "message_id": "<one@example.com>",
    }
    [kept] = catcher.messages()
    assert kept.raw.startswith(b"From: Galaxy <galaxy@example.com>\r\n")


def test_what_a_mail_does_not_have_is_null(catcher: MailCatcher) -> None:
    message = EmailMessage()
    message.set_content("only text")
    send(catcher, message, "ada@example.com")
    [item] = get(catcher)
    assert (item["subject"], item["html"], item["message_id"]) == ("", None, None)


def test_newest_first_by_recipient_without_regard_to_case(catcher: MailCatcher) -> None:
    for number in range(3):
        send(catcher, letter(f"mail {number}"), "Ada@Example.com", "bob+x@example.com")
    send(catcher, letter("another"), "eve@example.com")
    assert [item["subject"] for item in get(catcher, to="ada@example.COM")] == ["mail 2", "mail 1", "mail 0"]
    assert [item["subject"] for item in get(catcher)][:2] == ["another", "mail 2"]
    assert len(get(catcher, to="bob+x@example.com")) == 3
    assert get(catcher, to="nobody@example.com") == []
    written_by_hand = httpx.get(f"{catcher.url}/messages?to=bob+x@example.com").json()
    assert len(written_by_hand["items"]) == 3


def test_the_page_shows_mail_and_runs_nothing_of_it(catcher: MailCatcher) -> None:
    send(catcher, letter("<script>alert(1)</script>", "<img src=x onerror=alert(2)>"), '"<i>"@example.com')
    answer = httpx.get(f"{catcher.url}/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in answer.text
    assert "&lt;img src=x" in answer.text
    for tag in ("<script", "<img", "<i>"):
        assert tag not in answer.text


def test_a_character_set_that_does_not_exist_does_no_harm(catcher: MailCatcher) -> None:
    raw = b"Subject: odd\r\nContent-Type: text/plain; charset=no-such\r\n\r\ncode 123456 \xff\r\n"
    with smtplib.SMTP("127.0.0.1", catcher.smtp_port) as client:
        client.sendmail("galaxy@example.com", ["ada@example.com"], raw)
    [item] = get(catcher)
    assert "code 123456" in str(item["text"])


def test_the_oldest_make_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_catcher, "KEPT", 3)
    with MailCatcher() as small, smtplib.SMTP("127.0.0.1", small.smtp_port) as client:
        for number in range(5):
            client.send_message(letter(f"mail {number}"))
        assert [message.subject for message in small.messages()] == ["mail 4", "mail 3", "mail 2"]


def test_a_mail_that_is_too_large_is_refused(catcher: MailCatcher) -> None:
    with pytest.raises(smtplib.SMTPSenderRefused, match="552"):
        send(catcher, letter(text="x" * 79 + "\n" + "x\n" * mail_catcher.LARGEST), "ada@example.com")
    assert catcher.messages() == []


def test_waiting_ends_with_the_mail_or_with_the_time(catcher: MailCatcher) -> None:
    later = threading.Timer(0.1, send, [catcher, letter(), "ada@example.com"])
    later.start()
    assert [message.to for message in catcher.wait("ada@example.com")] == ["ada@example.com"]
    later.join()
    with pytest.raises(TimeoutError, match=r"1 of 2 mails to ada@example\.com"):
        catcher.wait("ada@example.com", count=2, timeout=0.05)
    catcher.clear()
    assert catcher.messages() == []


def test_another_path_is_not_found(catcher: MailCatcher) -> None:
    assert httpx.get(f"{catcher.url}/other").status_code == 404


def test_a_port_that_is_taken_is_told(catcher: MailCatcher) -> None:
    for ports in ((catcher.smtp_port, 0), (0, catcher.http_port)):
        with pytest.raises(OSError, match="in use"):
            MailCatcher(*ports).start()


def test_it_stops_in_spite_of_open_connections_and_starts_again(catcher: MailCatcher) -> None:
    with socket.create_connection(("127.0.0.1", catcher.smtp_port)) as client:
        assert client.recv(3) == b"220"
        catcher.stop()
    catcher.start()
    send(catcher, letter(), "ada@example.com")
    assert len(catcher.messages()) == 1


def test_as_a_program_it_says_where_it_is_and_stops_when_told() -> None:
    command = [sys.executable, "-m", "dev.mail_catcher", "--smtp-port", "0", "--http-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        url = program.stdout.readline().split()[-1]
        assert json.loads(httpx.get(f"{url}/messages").text) == {"items": []}
        program.send_signal(signal.SIGTERM)
        assert program.wait(10) == 0
