-- Deploy galaxy-backend:api/notification_preferences to pg
-- requires: backend/notifications
-- requires: backend/game_rules

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION api.notification_preferences_get(p_user_id uuid) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN notification_preferences_json(account_require(p_user_id))::text;
END;
$$;
COMMENT ON FUNCTION api.notification_preferences_get(uuid) IS
    'By which channels the caller is told of what. GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

CREATE FUNCTION api.notification_preferences_set(p_user_id uuid, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_problems jsonb;
    v_account accounts%ROWTYPE;
BEGIN
    PERFORM account_require(p_user_id);
    SELECT jsonb_agg(jsonb_build_object('path', concat_ws('.', 'channels', c.kind, w.channel), 'problem', CASE
               WHEN k.kind IS NULL THEN 'is not a kind that can be chosen'
               ELSE 'is not a channel of this kind' END))
      INTO v_problems
      FROM jsonb_each(p_body -> 'channels') AS c (kind, wanted)
      LEFT JOIN notification_kinds AS k ON k.kind = c.kind AND k.is_optional
      LEFT JOIN LATERAL jsonb_object_keys(c.wanted) AS w (channel) ON k.kind IS NOT NULL
     WHERE k.kind IS NULL OR NOT w.channel = ANY (k.channels);
    IF v_problems IS NOT NULL THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.', v_problems);
    END IF;
    PERFORM account_lock(p_user_id);
    DELETE FROM notification_opt_outs WHERE user_id = p_user_id;
    INSERT INTO notification_opt_outs (user_id, kind, channel)
    SELECT p_user_id, c.kind, w.channel
      FROM jsonb_each(p_body -> 'channels') AS c (kind, wanted), jsonb_each(c.wanted) AS w (channel, is_wanted)
     WHERE w.is_wanted = 'false';
    UPDATE accounts SET turn_reminder = p_body ->> 'turn_reminder' WHERE user_id = p_user_id RETURNING * INTO v_account;
    PERFORM turn_reminders_reschedule(p_user_id);
    RETURN notification_preferences_json(v_account)::text;
END;
$$;
COMMENT ON FUNCTION api.notification_preferences_set(uuid, jsonb) IS
    'Says by which channels the caller is told of what, whole: what is not named is told by every channel. GX400 invalid_request, GX403 account_blocked, account_deleted, sanctioned, GX404 account_not_found.';

COMMIT;
