-- Verify galaxy-backend:backend/budgets on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT budget, key_hash, spent, refused, window_started_at, last_at, expires_at, created_at, updated_at FROM backend.auth_budgets WHERE false;

DO $$
BEGIN
    ASSERT backend.source_network('192.0.2.77', 24) = '192.0.2.0/24', 'networks are not found';
    ASSERT length(backend.budget_key('address', 'x')) = 32, 'keys are not hashed';
    ASSERT (backend.budget_read('code_mails_per_network', '\x00')).spent = 0, 'what was not spent is counted';
    PERFORM 'backend.budget_spend(text, bytea, numeric)'::regprocedure;
    PERFORM 'backend.code_mail_spend(text, inet, boolean, boolean)'::regprocedure;
    PERFORM 'backend.code_may_be_tried(text, inet)'::regprocedure;
    PERFORM 'backend.code_was_wrong(text, inet)'::regprocedure;
    PERFORM 'backend.code_was_right(text)'::regprocedure;
END;
$$;

ROLLBACK;
