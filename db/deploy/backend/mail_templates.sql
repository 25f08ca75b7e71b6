-- Deploy galaxy-backend:backend/mail_templates to pg
-- requires: backend/mail

-- Why: what our mail says, in one place and one layout, as text and as HTML: one template for each kind that goes by mail.
-- docs/mail.md shows each as a person sees it. No subject holds what people wrote: who invites somebody does not choose the headline.

BEGIN;
SET LOCAL ROLE backend_owner;

-- A paragraph that begins with "# " is what the mail is about, and stands out.
INSERT INTO backend.mail_templates (template_id, priority, is_secret, subject, body_text, body_html)
SELECT t.template_id, t.priority, t.is_secret, t.subject,
       (SELECT string_agg(regexp_replace(p.paragraph, '^# ', '    '), E'\n\n' ORDER BY p.number) FROM unnest(t.paragraphs) WITH ORDINALITY AS p (paragraph, number))
           || E'\n\n-- \n' || f.footer || E'\n',
       E'<!doctype html>\n<html lang="en"><body style="margin: 0; background: #f3f4f6; color: #1f2937; font-family: sans-serif; line-height: 1.5">\n'
           || E'<div style="max-width: 34em; margin: 0 auto; padding: 1.5em">\n'
           || E'<p style="font-weight: bold; letter-spacing: 0.1em; color: #4338ca">GALAXY</p>\n'
           || E'<div style="background: #ffffff; border-radius: 0.5em; padding: 0.5em 1.5em">\n'
           || (SELECT string_agg(
                   -- A value of several lines keeps them.
                   CASE WHEN p.paragraph LIKE '# %' THEN '<p style="font-size: 2em; letter-spacing: 0.2em; font-weight: bold; margin: 0.3em 0">'
                        ELSE '<p style="white-space: pre-line">' END || regexp_replace(p.paragraph, '^# ', '') || '</p>',
                   E'\n' ORDER BY p.number) FROM unnest(t.paragraphs) WITH ORDINALITY AS p (paragraph, number))
           || E'\n</div>\n<p style="font-size: 0.8em; color: #6b7280">' || f.footer || E'</p>\n</div>\n</body></html>\n'
  FROM (VALUES
    ('auth.login_code', 100, true, 'address', 'Your Galaxy sign-in code', ARRAY[
        'Your sign-in code is',
        '# {{code}}',
        'It is good for {{minutes}} minutes, once. If you did not ask for it, ignore this mail: nobody can sign in without the code.']),
    ('lobby.invite.received', 0, false, 'person', 'You are invited to a game', ARRAY[
        'You are invited to the game {{game_name}}.',
        'Sign in to take a seat, or to decline.']),
    ('lobby.application.approved', 0, false, 'person', 'You have a seat in a game', ARRAY[
        'Your application to the game {{game_name}} was approved: you have a seat.',
        'You will hear from us when it starts.']),
    ('lobby.application.rejected', 0, false, 'person', 'Your application to a game', ARRAY[
        'Your application to the game {{game_name}} was not accepted.',
        'Other games are looking for players: sign in to find one.']),
    ('lobby.membership.removed', 0, false, 'decision', 'You are no longer in a game', ARRAY[
        'You are no longer a member of the game {{game_name}}.',
        'Reason: {{reason}}']),
    ('lobby.membership.blocked', 0, false, 'decision', 'You are blocked in a game', ARRAY[
        'You were blocked in the game {{game_name}} and cannot come back to it.']),
    ('lobby.race_name.pending', 0, false, 'person', 'You have earned a race name', ARRAY[
        'You have earned the race name {{race_name}}.',
        'Register it before {{expires_at}}, or it becomes free again.']),
    ('game.turn.ready', 0, false, 'reminder', 'Turn {{turn}} is ready', ARRAY[
        'Turn {{turn}} of the game {{game_name}} has been computed, and you have not been here since.',
        'Sign in to read your report and to give your orders.']),
    ('game.turn.digest', 0, false, 'reminder', 'Your turns are ready', ARRAY[
        'While you were away these turns were computed:',
        '{{turns}}',
        'Sign in to read your reports and to give your orders.']),
    ('game.started', 0, false, 'person', 'Your game has started', ARRAY[
        'The game {{game_name}} has started. Good luck!']),
    ('game.finished', 0, false, 'person', 'Your game is over', ARRAY[
        'The game {{game_name}} is over.',
        'Sign in to read your last report.']),
    ('game.generation.failed', 0, false, 'operator', 'A turn could not be computed', ARRAY[
        'Turn {{turn}} of the game {{game_name}} could not be computed. The game is paused.',
        'Reason: {{reason}}',
        'Game: {{game_id}}']),
    ('runtime.image_pull_failed', 0, false, 'operator', 'An engine image cannot be had', ARRAY[
        'The engine of the game {{game_name}} cannot be started: its image cannot be had.',
        'Image: {{image_ref}}',
        'Game: {{game_id}}']),
    ('runtime.container_start_failed', 0, false, 'operator', 'An engine does not start', ARRAY[
        'The engine of the game {{game_name}} does not start.',
        'Game: {{game_id}}']),
    ('runtime.start_config_invalid', 0, false, 'operator', 'A game cannot be started', ARRAY[
        'The game {{game_name}} cannot be started as it is configured.',
        'Reason: {{reason}}',
        'Game: {{game_id}}']),
    ('mail.dead_lettered', 0, false, 'operator', 'A mail could not be delivered', ARRAY[
        'A mail was given up.',
        'Delivery: {{delivery_id}}',
        'Template: {{template_id}}',
        'Its attempts say why: GET /api/v1/admin/mail/deliveries/{{delivery_id}}/attempts'])
  ) AS t (template_id, priority, is_secret, audience, subject, paragraphs)
  CROSS JOIN LATERAL (SELECT 'You get this mail because ' || CASE t.audience
      WHEN 'address' THEN 'somebody asked to sign in to Galaxy with this address.'
      WHEN 'person' THEN 'you have an account at Galaxy. Your notification preferences say which mails you get.'
      WHEN 'decision' THEN 'it is about your seat in a game at Galaxy.'
      WHEN 'reminder' THEN 'you asked to be reminded of turns. Your notification preferences end that.'
      WHEN 'operator' THEN 'this is the address for administrators of this Galaxy platform.'
  END) AS f (footer);

COMMIT;
