-- Verify galaxy-backend:backend/cron on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
BEGIN
    ASSERT backend.cron_field('1-5/2,9', 0, 59) = '{1,3,5,9}', 'backend.cron_field() is wrong';
    ASSERT backend.cron_next('0 18 * * mon', '2026-01-01T00:00Z') = '2026-01-05T18:00Z', 'backend.cron_next() is wrong';
    ASSERT backend.cron_next('0 0 31 2 *', '2026-01-01T00:00Z') IS NULL, 'a day that never comes has come';
END;
$$;

ROLLBACK;
