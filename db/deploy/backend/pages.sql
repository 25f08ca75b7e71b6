-- Deploy galaxy-backend:backend/pages to pg
-- requires: backend/errors

-- Why: lists are paged by key. A cursor names the list that it came from, so that one from elsewhere is refused and not
-- silently taken for a place in this one.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.cursor_make(p_list text, p_key text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN encode(convert_to(left(md5(p_list || ':' || p_key), 8) || p_key, 'UTF8'), 'hex');
COMMENT ON FUNCTION backend.cursor_make(text, text) IS
    'An opaque cursor: the key of the last row of a page of a list. p_list names the list, with its filters.';

CREATE FUNCTION backend.cursor_read(p_list text, p_cursor text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_key text;
BEGIN
    IF p_cursor IS NULL THEN
        RETURN NULL;
    END IF;
    -- Printable ASCII in pairs of hexadecimal digits: what we make, and never invalid UTF-8.
    IF length(p_cursor) <= 1200 AND p_cursor ~ '^([2-7][0-9a-f])+$' THEN
        v_key := substr(convert_from(decode(p_cursor, 'hex'), 'UTF8'), 9);
        IF p_cursor = cursor_make(p_list, v_key) THEN
            RETURN v_key;
        END IF;
    END IF;
    PERFORM fail(400, 'invalid_cursor', 'The cursor is not one of this list.');
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.cursor_read(text, text) IS 'The key in a cursor of this list; null for null. GX400 invalid_cursor.';

CREATE FUNCTION backend.cursor_read_id(p_list text, p_cursor text) RETURNS uuid
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_key text := cursor_read(p_list, p_cursor);
BEGIN
    IF v_key !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
        PERFORM fail(400, 'invalid_cursor', 'The cursor is not one of this list.');
    END IF;
    RETURN v_key::uuid;
END;
$$;
COMMENT ON FUNCTION backend.cursor_read_id(text, text) IS
    'The id in a cursor of a list that is ordered by ids; null for null. GX400 invalid_cursor.';

CREATE FUNCTION backend.page(p_list text, p_items jsonb[], p_keys text[], p_limit integer) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN json_build_object(
    'items', coalesce(to_json(p_items[1:p_limit]), '[]'),
    'next_cursor', CASE WHEN cardinality(p_items) > p_limit THEN backend.cursor_make(p_list, p_keys[p_limit]) END
)::text;
COMMENT ON FUNCTION backend.page(text, jsonb[], text[], integer) IS
    'A page of a list, as the contract''s JSON, from at most p_limit + 1 items and their keys in order.';

COMMIT;
