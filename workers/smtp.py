"""Mail to a relay over one connection, and what became of each attempt."""

from __future__ import annotations

import asyncio
import datetime
import email.policy
import email.utils
import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.header import Header
from email.message import Message
from email.mime.text import MIMEText
from typing import Literal

import aiosmtplib
from aiosmtplib import errors

from app.config import Config

Outcome = Literal["sent", "transient", "permanent", "outcome_unknown"]


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


# Seven bits and short lines, whatever the texts are: some relays still offer no more.
_POLICY = email.policy.compat32.clone(linesep="\r\n")

# As the database takes addresses. "=?" would begin an encoded word where the header is read.
_ADDRESS = re.compile(r"(?!.*=\?)[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")

_LONGEST_ERROR = 200

# A bad sequence, and what is said of logins and encryption that are wanted.
_OURS = (503, 530, 534, 535, 538)


def message(mail: Mail, sender: str) -> Message[str, str | Header]:
    """Return the mail as it goes out. Its Message-ID is the delivery's, so that one sent twice can be recognised."""
    name, address = email.utils.parseaddr(sender)
    made: Message[str, str | Header] = Message(policy=_POLICY)
    made["From"] = email.utils.formataddr((name, address))
    made["To"] = ", ".join(mail.recipients)
    # Encoded whole wherever it is more than plain words, so that nothing in it is read as an encoding or as a line's end.
    subject = " ".join(mail.subject.split())
    is_plain = subject.isascii() and subject.isprintable() and "=?" not in subject
    made["Subject"] = subject if is_plain else Header(subject, "utf-8")
    made["Date"] = email.utils.format_datetime(datetime.datetime.now(datetime.UTC))
    made["Message-ID"] = f"<{mail.delivery_id}@{address.rpartition('@')[2] or 'localhost'}>"
    made["Auto-Submitted"] = "auto-generated"
    made["MIME-Version"] = "1.0"
    made["Content-Type"] = "multipart/alternative"
    made.attach(MIMEText(mail.body_text, "plain", "utf-8", policy=_POLICY))
    made.attach(MIMEText(mail.body_html, "html", "utf-8", policy=_POLICY))
    return made


class _GoneError(Exception):
    """A connection that was kept is of no more use; nothing of the mail has been said on it."""


class Relay:
    """A connection to the relay, made when the first mail is sent and kept for the next ones."""

    def __init__(self, config: Config) -> None:
        self._sender = config.smtp_from
        self._timeout = config.smtp_timeout
        self._content_timeout = config.smtp_content_timeout
        self._client = aiosmtplib.SMTP(
            hostname=config.smtp_host,
            port=config.smtp_port,
            username=config.smtp_username,
            password=config.smtp_password,
            use_tls=config.smtp_tls_mode == "tls",
            start_tls=config.smtp_tls_mode == "starttls",
            validate_certs=True,
            timeout=config.smtp_timeout,
        )

    async def send(self, mail: Mail) -> Result:
        """Send one mail; never raises for what a relay or the network can do."""
        if not mail.recipients or not all(_ADDRESS.fullmatch(recipient) for recipient in mail.recipients):
            return Result("permanent", "a recipient is not an address")
        try:
            return await self._send(mail, is_kept=self._client.is_connected)
        except _GoneError:
            self.close()
            return await self._send(mail, is_kept=False)

    async def _send(self, mail: Mail, is_kept: bool) -> Result:
        mail_began = data_began = False
        try:
            async with asyncio.timeout(self._timeout):
                if not self._client.is_connected:
                    await self._client.connect()
                await self._client.mail(email.utils.parseaddr(self._sender)[1])
                mail_began = True
                for recipient in mail.recipients:
                    await self._client.rcpt(recipient)
            content = message(mail, self._sender).as_bytes()
            data_began = True
            async with asyncio.timeout(self._content_timeout):
                await self._client.data(content, timeout=self._content_timeout)
            return Result("sent")
        except errors.SMTPResponseException as error:
            # Many relays take so many mails and then say 421, or just hang up.
            if is_kept and not mail_began and error.code == 421:
                raise _GoneError from None
            return await self._refused(error, data_began)
        except (errors.SMTPException, OSError, TimeoutError, ValueError) as error:
            if is_kept and not mail_began and isinstance(error, errors.SMTPServerDisconnected):
                raise _GoneError from None
            # After the mail began to go out, nobody knows whether the relay has taken it.
            self.close()
            return Result("outcome_unknown" if data_began else "transient", _reason(error))

    async def _refused(self, error: errors.SMTPResponseException, data_began: bool) -> Result:
        text = f"{error.code} {_clean(error.message)}".strip()
        is_of_recipient = isinstance(error, errors.SMTPRecipientRefused | errors.SMTPDataError)
        if not 400 <= error.code < 600:
            # No answer that SMTP knows.
            self.close()
            return Result("outcome_unknown" if data_began else "transient", text)
        if not is_of_recipient or error.code in _OURS or re.search(r"\brelay", text, re.IGNORECASE):
            # The sender, the login, the greeting, a relay that is not for us: nothing that the recipient is the cause of.
            self.close()
            return Result("transient", text)
        await self._reset()
        return Result("permanent" if error.code >= 500 else "transient", text)

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


def _reason(error: BaseException) -> str:
    """The kind of trouble, and what it came of: a name that is not found, a refused connection, TLS that is not offered."""
    if type(error) is errors.SMTPException:
        # The library's own sentence, such as of an extension that the relay has not.
        return _clean(str(error)) or "SMTPException"
    kinds = [type(error).__name__]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(kinds) < 4:
        if type(cause).__name__ not in kinds:
            kinds.append(type(cause).__name__)
        cause = cause.__cause__ or cause.__context__
    return ": ".join(kinds)


def _clean(text: str) -> str:
    """The first line of a relay's answer, as it can be stored and logged: printable, short, without addresses."""
    line = text.splitlines()[0] if text.splitlines() else ""
    printable = "".join(c if c.isprintable() else " " for c in line.encode("utf-8", "replace").decode())
    return re.sub(r"[^\s<>,;:]+@[^\s<>,;:]+", "…", printable)[:_LONGEST_ERROR].strip()
