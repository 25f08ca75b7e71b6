-- Deploy galaxy-backend:backend/clock to pg
-- requires: backend/schemas

-- Why: time is the database's. Every default and deadline asks backend.now(), so that a test can live through thirty days in a
-- second. Only the owner can move the clock: its offset is a row, not a setting that any login could make.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.clock (
    is_only boolean PRIMARY KEY DEFAULT true CONSTRAINT clock_has_one_row CHECK (is_only),
    clock_offset interval NOT NULL DEFAULT '0',
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE backend.clock IS 'One row: how far backend.now() is from the server''s clock. Zero in production.';
INSERT INTO backend.clock DEFAULT VALUES;

-- Every row's default asks it: in SQL, which starts an executor for each call, it took three times as long.
CREATE FUNCTION backend.now() RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN transaction_timestamp() + (SELECT c.clock_offset FROM clock AS c);
END;
$$;
COMMENT ON FUNCTION backend.now() IS 'The time of the transaction by the platform''s clock.';

CREATE FUNCTION backend.ts(p_at timestamptz) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN to_char(p_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
COMMENT ON FUNCTION backend.ts(timestamptz) IS 'A time as RFC 3339 in UTC with microseconds and Z; null for null.';

-- Milliseconds in the first 48 bits, the microseconds within them in the 12 bits after the version, so that ids made by one
-- backend sort by the moment they were made at; the rest is random.
CREATE FUNCTION backend.uuid_v7() RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_micros bigint;
    v_bytes bytea := uuid_send(gen_random_uuid());
BEGIN
    SELECT (extract(epoch FROM clock_timestamp() + c.clock_offset) * 1000000)::bigint INTO v_micros FROM backend.clock AS c;
    v_bytes := overlay(v_bytes PLACING substring(int8send(v_micros / 1000) FROM 3) FROM 1 FOR 6);
    v_bytes := overlay(v_bytes PLACING int2send((x'7000'::int | ((v_micros % 1000) * 4096 / 1000)::int)::smallint) FROM 7 FOR 2);
    RETURN encode(v_bytes, 'hex')::uuid;
END;
$$;
COMMENT ON FUNCTION backend.uuid_v7() IS 'A new UUID of version 7 (RFC 9562) by the platform''s clock.';

-- Why: updated_at is true only if nobody has to remember it.
CREATE FUNCTION backend.tg_row__touch() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    NEW.updated_at := backend.now();
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION backend.tg_row__touch() IS 'Before update of a row: sets updated_at.';

COMMIT;
