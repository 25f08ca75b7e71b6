"""docs/mail.md shows the mail that is sent."""

from __future__ import annotations

from dev import mail_pictures
from tests.postgres import Database


def test_every_mail_is_shown_as_it_is(database: Database) -> None:
    shown = mail_pictures.mails(database.connect())
    assert len(shown) > 10
    assert mail_pictures.PAGE.read_text() == mail_pictures.page(shown), "run `make mails`"
    pictures = {picture.name for picture in mail_pictures.PICTURES.iterdir()}
    assert pictures == {f"{mail.template_id}.png" for mail in shown}


def test_a_page_that_is_old_is_told(database: Database) -> None:
    with database.connect() as connection:
        before = mail_pictures.page(mail_pictures.mails(connection))
        connection.execute("UPDATE backend.mail_templates SET body_html = body_html || ' ' WHERE template_id = 'game.started'")
        assert mail_pictures.page(mail_pictures.mails(connection)) != before
