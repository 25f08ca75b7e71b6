-- Deploy galaxy-backend:api/geo to pg
-- requires: backend/geo
-- requires: backend/administrators

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.geo_countries_add(p_counts jsonb) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    WITH counted AS (
        SELECT c.user_id, c.country, sum(c.requests) AS requests
          FROM jsonb_to_recordset(p_counts) AS c (user_id uuid, country text, requests bigint)
         GROUP BY c.user_id, c.country
    ), people AS MATERIALIZED (
        -- In the order of the key; locked, so that nobody's counters come back while they are being deleted.
        SELECT a.user_id FROM accounts AS a
         WHERE a.user_id IN (SELECT c.user_id FROM counted AS c) AND a.deleted_at IS NULL
         ORDER BY a.user_id
           FOR SHARE
    )
    INSERT INTO user_country_counters AS k (user_id, country, requests, first_seen_at, last_seen_at)
    SELECT c.user_id, c.country, c.requests, backend.now(), backend.now() FROM counted AS c JOIN people AS p USING (user_id)
     ORDER BY c.user_id, c.country
        ON CONFLICT (user_id, country) DO UPDATE
       SET requests = k.requests + excluded.requests, last_seen_at = greatest(k.last_seen_at, excluded.last_seen_at);
    GET DIAGNOSTICS v_count = ROW_COUNT;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION api.geo_countries_add(jsonb) IS
    'Adds to the counters of those who are there: a list of user_id, country and requests; returns how many counters changed. 23514 for what is no country or no count.';

CREATE FUNCTION api.geo_country_list(p_admin text, p_user_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM administrator_require(p_admin);
    IF NOT EXISTS (SELECT FROM accounts AS a WHERE a.user_id = p_user_id) THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    END IF;
    RETURN json_build_object('items', (
        SELECT coalesce(json_agg(json_build_object('country', c.country, 'requests', c.requests, 'first_seen_at', ts(c.first_seen_at),
                                                   'last_seen_at', ts(c.last_seen_at))
                                 ORDER BY c.requests DESC, c.country), '[]')
          FROM user_country_counters AS c WHERE c.user_id = p_user_id))::text;
END;
$$;
COMMENT ON FUNCTION api.geo_country_list(text, uuid) IS
    'From which countries a person''s requests came, most first. GX401 unauthorized, GX404 account_not_found.';

COMMIT;
