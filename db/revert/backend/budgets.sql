-- Revert galaxy-backend:backend/budgets from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION backend.code_was_right(text);
DROP FUNCTION backend.code_was_wrong(text, inet);
DROP FUNCTION backend.code_may_be_tried(text, inet);
DROP FUNCTION backend.code_mail_spend(text, inet, boolean, boolean);
DROP FUNCTION backend.budget_spend(text, bytea, numeric);
DROP FUNCTION backend.budget_read(text, bytea);
DROP FUNCTION backend.budget_key(text[]);
DROP FUNCTION backend.source_network(inet, integer);
DROP TABLE backend.auth_budgets;

COMMIT;
