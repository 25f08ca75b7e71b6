-- Verify galaxy-backend:backend/mail_templates on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_mail record;
BEGIN
    ASSERT (SELECT count(*) >= 16 FROM backend.mail_templates), 'templates are missing';
    ASSERT EXISTS (SELECT FROM backend.mail_templates WHERE template_id = 'auth.login_code' AND is_secret AND priority >= 100),
        'a sign-in code is not a secret that goes first';
    FOR v_mail IN SELECT * FROM backend.mail_templates LOOP
        ASSERT v_mail.body_html LIKE '<!doctype html>%' AND v_mail.body_html LIKE '%</html>' || E'\n', format('%s has no HTML', v_mail.template_id);
    END LOOP;
END;
$$;

ROLLBACK;
