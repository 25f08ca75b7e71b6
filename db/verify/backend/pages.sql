-- Verify galaxy-backend:backend/pages on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
BEGIN
    ASSERT backend.cursor_read('a', backend.cursor_make('a', 'key')) = 'key', 'a cursor does not come back';
    BEGIN
        PERFORM backend.cursor_read('b', backend.cursor_make('a', 'key'));
        ASSERT false, 'a cursor from elsewhere is taken';
    EXCEPTION WHEN SQLSTATE 'GX400' THEN
        NULL;
    END;
    ASSERT backend.cursor_read_id('a', NULL) IS NULL, 'no cursor is a place';
    ASSERT backend.page('a', ARRAY['1', '2']::jsonb[], ARRAY['1', '2'], 2)::json ->> 'next_cursor' IS NULL, 'the last page goes on';
END;
$$;

ROLLBACK;
