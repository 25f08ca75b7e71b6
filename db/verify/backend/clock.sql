-- Verify galaxy-backend:backend/clock on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
BEGIN
    ASSERT (SELECT count(*) = 1 FROM backend.clock), 'the clock must have one row';
    ASSERT backend.now() IS NOT NULL, 'the clock stands still';
    ASSERT backend.ts('2026-01-02T03:04:05.000006+02') = '2026-01-02T01:04:05.000006Z', 'backend.ts() is wrong';
    ASSERT backend.uuid_v7()::text ~ '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
        'backend.uuid_v7() does not make version 7';
    PERFORM 'backend.tg_row__touch()'::regprocedure;
END;
$$;

ROLLBACK;
