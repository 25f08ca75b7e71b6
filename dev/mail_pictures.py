"""docs/mail.md and its pictures: every mail as a person sees it. `python -m dev.mail_pictures` needs Chromium."""

from __future__ import annotations

import hashlib
import html
import shutil
import subprocess
import sys
import tempfile
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import default
from pathlib import Path
from typing import NamedTuple, cast

import psycopg
from psycopg.types.json import Jsonb

from app.supervisor import ROOT
from dev.cluster import throw_away
from workers.smtp import Mail, message

PAGE = ROOT / "docs" / "mail.md"
PICTURES = ROOT / "docs" / "mail"

SENDER = "Galaxy <noreply@galaxy.example>"

_HEADING = """\
# Mail

Every mail that the platform sends, with sample values, as a person sees it: HTML, and beside it the text that goes along. The
templates are rows of `backend.mail_templates`. Written by `make mails`; the digests keep pictures from growing old.
"""

SAMPLES = {
    "code": "804713",
    "minutes": 10,
    "game_id": "0197f3a2-5b1c-7d20-9e46-3f1a2b4c5d6e",
    "game_name": "Friday night wars",
    "race_name": "Zorgons",
    "expires_at": "21 December 2026, 08:00 UTC",
    "reason": "There was no word from you for three weeks.",
    "turn": 17,
    "turns": "Friday night wars: turn 16, 17\nThe long game: turn 203",
    "image_ref": "registry.example/galaxy/engine:1.4.2",
    "delivery_id": "0197f3a2-5b1c-7d20-9e46-000000000001",
    "template_id": "game.started",
}


class Shown(NamedTuple):
    """A mail as its reader's program has it."""

    template_id: str
    subject: str
    text: str
    markup: str

    @property
    def digest(self) -> str:
        """Of all that a picture shows."""
        return hashlib.sha256(self.document.encode()).hexdigest()[:16]

    @property
    def document(self) -> str:
        """A page with the mail, its head above and its text beside the HTML."""
        text = html.escape(self.text)
        return f"""<!doctype html><meta charset="utf-8"><title>{html.escape(self.subject)}</title>
<body style="margin: 0; padding: 16px; font-family: sans-serif; background: #ffffff">
<table style="font-size: 14px"><tr><td style="color: #6b7280">From</td><td>{html.escape(SENDER)}</td></tr>
<tr><td style="color: #6b7280">Subject</td><td><strong>{html.escape(self.subject)}</strong></td></tr></table>
<div style="display: flex; gap: 16px; margin-top: 12px; align-items: stretch">
<iframe srcdoc="{html.escape(self.markup)}" style="width: 560px; height: 400px; border: 1px solid #d1d5db"></iframe>
<pre style="width: 420px; margin: 0; padding: 12px; border: 1px solid #d1d5db; white-space: pre-wrap">{text}</pre>
</div>"""


def mails(connection: psycopg.Connection[object]) -> list[Shown]:
    """Every template with sample values: rendered by the database, put into a message, read from it again."""
    with connection.transaction(force_rollback=True):
        connection.execute(
            "SELECT backend.mail_enqueue(template_id, 'sample', ARRAY['ann@example.org'], %s) FROM backend.mail_templates",
            [Jsonb(SAMPLES)],
        )
        rows = cast(
            "list[tuple[str, str, str, str]]",
            connection.execute(
                """
                SELECT d.template_id, p.subject, p.body_text, p.body_html
                  FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id)
                 WHERE d.idempotency_key = 'sample' ORDER BY d.template_id COLLATE "C"
                """
            ).fetchall(),
        )
    return [_shown(*row) for row in rows]


def _shown(template_id: str, subject: str, body_text: str, body_html: str) -> Shown:
    raw = message(Mail("sample", ["ann@example.org"], subject, body_text, body_html), SENDER).as_bytes()
    read: EmailMessage = BytesParser(policy=default).parsebytes(raw)
    parts = {part.get_content_type(): str(part.get_content()).replace("\r\n", "\n") for part in read.iter_parts()}
    return Shown(template_id, str(read["Subject"]), parts["text/plain"], parts["text/html"])


def page(shown: list[Shown]) -> str:
    """docs/mail.md: each mail's text and its picture, which is named with a digest of what it shows."""
    parts = [_HEADING]
    parts += [f'## {mail.template_id}\n\n![{mail.subject}](mail/{mail.template_id}.png "{mail.digest}")\n' for mail in shown]
    return "\n".join(parts)


def _take(mail: Shown, chromium: str, directory: Path) -> None:
    source = directory / "mail.html"
    source.write_text(mail.document)
    subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1060,500",
         f"--screenshot={PICTURES / (mail.template_id + '.png')}", source.as_uri()],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=120,
    )  # fmt: skip


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("mail_pictures: Chromium is not installed\n")
        return 1
    with throw_away() as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        with cluster.connect("galaxy") as connection:
            shown = mails(connection)
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory() as directory:
        for mail in shown:
            _take(mail, chromium, Path(directory))
    PAGE.write_text(page(shown))
    print(f"written: docs/mail.md, {len(shown)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
