-- Test galaxy-backend:backend/mail_templates

BEGIN;
SELECT plan(8);

SELECT set_eq(
    'SELECT template_id FROM backend.mail_templates',
    ARRAY['auth.login_code', 'lobby.invite.received', 'lobby.application.approved', 'lobby.application.rejected', 'lobby.membership.removed',
          'lobby.membership.blocked', 'lobby.race_name.pending', 'game.turn.ready', 'game.turn.digest', 'game.started', 'game.finished',
          'game.generation.failed', 'runtime.image_pull_failed', 'runtime.container_start_failed', 'runtime.start_config_invalid', 'mail.dead_lettered'],
    'there is one template for each mail');
SELECT results_eq(
    'SELECT template_id FROM backend.mail_templates WHERE is_secret OR priority >= 100', $$VALUES ('auth.login_code')$$, 'a sign-in code alone is secret, and somebody waits for it');
SELECT is_empty($$SELECT template_id FROM backend.mail_templates WHERE subject ~ 'code\}'$$, 'which is in no subject');
SELECT is_empty($$SELECT template_id FROM backend.mail_templates WHERE body_text !~ '\n\n-- \nYou get this mail because [^\n]+\n$'$$, 'each says why it came');
SELECT is_empty(
    $$SELECT template_id FROM backend.mail_templates WHERE body_html !~ '^<!doctype html>\n<html lang="en">' OR body_html !~ 'You get this mail because' OR body_html !~ '</html>\n$'$$,
    'also in HTML');
SELECT is_empty($$SELECT template_id FROM backend.mail_templates WHERE body_html ~* '<(script|img|link|iframe|form)|https?://|url\('$$, 'which fetches nothing and runs nothing');
SELECT is_empty($$SELECT template_id FROM backend.mail_templates WHERE body_text ~ '[<>]'$$, 'the text has no markup');
SELECT is_empty(
    $$SELECT template_id, v FROM backend.mail_templates, regexp_matches(body_text, '\{\{([a-z_]+)\}\}', 'g') AS v
      EXCEPT SELECT template_id, v FROM backend.mail_templates, regexp_matches(body_html, '\{\{([a-z_]+)\}\}', 'g') AS v$$,
    'and says what the HTML says');

SELECT * FROM finish();
ROLLBACK;
