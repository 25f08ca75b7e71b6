"""Mail to a relay over one connection, and what became of each attempt."""

from __future__ import annotations

import asyncio
import email.policy
import email.utils
from collections.abc import Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Literal

import aiosmtplib
from aiosmtplib import errors

from app.config import Config

Outcome = Literal["sent", "transient", "permanent", "outcome_unknown"]

SEND_TIMEOUT = 20.0
"""Seconds that one mail may take, the connection included; the lease of an attempt is longer."""


@dataclass(frozen=True)
class Mail:
    """A claimed mail."""

    delivery_id: str
    recipients: Sequence[str]
    subject: str
    body_text: str
    body_html: str


@dataclass(frozen=True)
class Result:
    """What came of an attempt; `error` is the relay's answer or the kind of trouble, without any address of ours."""

    outcome: Outcome
    error: str | None = None


def message(mail: Mail, sender: str) -> EmailMessage:
    """Return the mail as it goes out. Its Message-ID is the delivery's, so that one sent twice can be recognised."""
    made = EmailMessage(policy=email.policy.SMTP)
    made["From"] = sender
    made["To"] = ", ".join(mail.recipients)
    made["Subject"] = mail.subject
    made["Date"] = email.utils.localtime()
    made["Message-ID"] = f"<{mail.delivery_id}@{_domain(sender)}>"
    made["Auto-Submitted"] = "auto-generated"
    made.set_content(mail.body_text)
    made.add_alternative(mail.body_html, subtype="html")
    return made


def _domain(sender: str) -> str:
    return email.utils.parseaddr(sender)[1].rpartition("@")[2] or "localhost"


class Relay:
    """A connection to the relay, made when the first mail is sent and kept for the next ones."""

    def __init__(self, config: Config) -> None:
        self._sender = config.smtp_from
        self._client = aiosmtplib.SMTP(
            hostname=config.smtp_host,
            port=config.smtp_port,
            username=config.smtp_username,
            password=config.smtp_password,
            use_tls=config.smtp_tls_mode == "tls",
            start_tls=config.smtp_tls_mode == "starttls",
            validate_certs=True,
            timeout=SEND_TIMEOUT,
        )

    async def send(self, mail: Mail) -> Result:
        """Send one mail; never raises for what a relay or the network can do."""
        data_began = False
        try:
            async with asyncio.timeout(SEND_TIMEOUT):
                if not self._client.is_connected:
                    await self._client.connect()
                await self._client.mail(email.utils.parseaddr(self._sender)[1])
                for recipient in mail.recipients:
                    await self._client.rcpt(recipient)
                content = message(mail, self._sender).as_bytes()
                data_began = True
                await self._client.data(content)
            return Result("sent")
        except (errors.SMTPRecipientRefused, errors.SMTPDataError) as error:
            await self._reset()
            return Result("permanent" if 500 <= error.code < 600 else "transient", f"{error.code} {_first_line(error.message)}")
        except errors.SMTPResponseException as error:
            # The sender, the login, the greeting: ours or the relay's trouble, not the recipient's.
            self.close()
            return Result("transient", f"{error.code} {_first_line(error.message)}")
        except (errors.SMTPException, OSError, TimeoutError, ValueError) as error:
            # After the mail began to go out, nobody knows whether the relay has taken it.
            self.close()
            return Result("outcome_unknown" if data_began else "transient", type(error).__name__)

    async def quit(self) -> None:
        """Say goodbye, if there is somebody to say it to."""
        if self._client.is_connected:
            try:
                async with asyncio.timeout(2):
                    await self._client.quit()
            except (errors.SMTPException, OSError, TimeoutError):
                self.close()

    def close(self) -> None:
        """Drop the connection; the next mail makes a new one."""
        self._client.close()

    async def _reset(self) -> None:
        try:
            async with asyncio.timeout(5):
                await self._client.rset()
        except (errors.SMTPException, OSError, TimeoutError):
            self.close()


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200] if text else ""
