-- Deploy galaxy-backend:backend/account_moderation to pg
-- requires: backend/account_deletion

-- Why: what is given to a person and taken from them. A record says what was decided and stays; what is in force points at it.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.account_moderate(p_user_id uuid) RETURNS backend.accounts
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    ELSIF v_account.deleted_at IS NOT NULL THEN
        PERFORM fail(409, 'conflict', 'This account has been deleted.');
    END IF;
    RETURN v_account;
END;
$$;
COMMENT ON FUNCTION backend.account_moderate(uuid) IS
    'An account that something is done to by an administrator, locked. GX404 account_not_found, GX409 conflict for a deleted one.';

CREATE FUNCTION backend.url_segment(p_text text) RETURNS text
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN (
    SELECT string_agg(CASE WHEN c.letter ~ '[A-Za-z0-9._~@+-]' THEN c.letter ELSE '%' || upper(encode(convert_to(c.letter, 'UTF8'), 'hex')) END, '' ORDER BY c.n)
      FROM regexp_split_to_table(p_text, '') WITH ORDINALITY AS c (letter, n)
);
COMMENT ON FUNCTION backend.url_segment(text) IS 'ASCII text as a segment of a path.';

CREATE FUNCTION backend.blocked_email_json(p_blocked backend.blocked_emails) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'email', p_blocked.email,
    'reason', p_blocked.reason,
    'actor', p_blocked.actor,
    'created_at', backend.ts(p_blocked.created_at)
);
COMMENT ON FUNCTION backend.blocked_email_json(backend.blocked_emails) IS 'A blocked address as the contract shows it.';

CREATE FUNCTION backend.entitlement_tier_json(p_tier backend.entitlement_tiers) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'tier', p_tier.tier,
    'is_paid', p_tier.is_paid,
    'duration_days', (extract(epoch FROM p_tier.duration) / 86400)::integer,
    'max_registered_race_names', p_tier.max_registered_race_names,
    'max_owned_private_games', p_tier.max_owned_private_games,
    'max_pending_applications', p_tier.max_pending_applications,
    'max_active_memberships', p_tier.max_active_memberships,
    'updated_at', backend.ts(p_tier.updated_at)
);
COMMENT ON FUNCTION backend.entitlement_tier_json(backend.entitlement_tiers) IS 'A tier as the contract shows it.';

CREATE FUNCTION backend.entitlement_record_json(p_record backend.entitlement_records) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'entitlement_record_id', p_record.entitlement_record_id,
    'tier', p_record.tier,
    'source', p_record.source,
    'actor', p_record.actor,
    'reason_code', p_record.reason_code,
    'starts_at', backend.ts(p_record.starts_at),
    'ends_at', backend.ts(p_record.ends_at),
    'created_at', backend.ts(p_record.created_at)
);
COMMENT ON FUNCTION backend.entitlement_record_json(backend.entitlement_records) IS 'A grant as the contract shows it.';

CREATE FUNCTION backend.sanction_record_json(p_record backend.sanction_records) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'sanction_record_id', p_record.sanction_record_id,
    'code', p_record.code,
    'action', p_record.action,
    'reason', p_record.reason,
    'actor', p_record.actor,
    'expires_at', backend.ts(p_record.expires_at),
    'created_at', backend.ts(p_record.created_at)
);
COMMENT ON FUNCTION backend.sanction_record_json(backend.sanction_records) IS 'A sanction that was applied or lifted as the contract shows it.';

CREATE FUNCTION backend.limit_record_json(p_record backend.limit_records) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'limit_record_id', p_record.limit_record_id,
    'code', p_record.code,
    'action', p_record.action,
    'value', p_record.value,
    'reason', p_record.reason,
    'actor', p_record.actor,
    'expires_at', backend.ts(p_record.expires_at),
    'created_at', backend.ts(p_record.created_at)
);
COMMENT ON FUNCTION backend.limit_record_json(backend.limit_records) IS 'A limit that was set or cleared as the contract shows it.';

-- Why: days are of 24 hours, wherever the server is.
CREATE FUNCTION backend.entitlement_end(p_tier text, p_starts_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (SELECT (p_starts_at AT TIME ZONE 'UTC' + t.duration) AT TIME ZONE 'UTC' FROM backend.entitlement_tiers AS t WHERE t.tier = p_tier);
COMMENT ON FUNCTION backend.entitlement_end(text, timestamptz) IS 'When a grant of a tier ends by itself; null for never.';

CREATE FUNCTION backend.entitlement_grant(
    p_user_id uuid, p_tier text, p_actor text, p_reason_code text, p_starts_at timestamptz, p_ends_at timestamptz
) RETURNS backend.entitlement_records
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_record entitlement_records%ROWTYPE;
    v_starts_at timestamptz := coalesce(p_starts_at, backend.now());
BEGIN
    -- First what has ended meanwhile: in the books it comes before this one.
    PERFORM entitlement_settle(p_user_id);
    INSERT INTO entitlement_records (user_id, tier, source, actor, reason_code, starts_at, ends_at)
    SELECT p_user_id, t.tier, 'admin', p_actor, p_reason_code, v_starts_at, coalesce(p_ends_at, entitlement_end(t.tier, v_starts_at))
      FROM entitlement_tiers AS t WHERE t.tier = p_tier
    RETURNING * INTO v_record;
    PERFORM entitlement_settle(p_user_id);
    RETURN v_record;
END;
$$;
COMMENT ON FUNCTION backend.entitlement_grant(uuid, text, text, text, timestamptz, timestamptz) IS
    'Grants a tier, from now and for its duration unless told otherwise. The account is locked by the caller.';

CREATE FUNCTION backend.sanction_apply(p_user_id uuid, p_code text, p_reason text, p_actor text, p_expires_at timestamptz)
RETURNS backend.sanction_records
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_record sanction_records%ROWTYPE;
BEGIN
    INSERT INTO sanction_records (user_id, code, action, reason, actor, expires_at)
    VALUES (p_user_id, p_code, 'apply', p_reason, p_actor, p_expires_at)
    RETURNING * INTO v_record;
    INSERT INTO sanction_active (user_id, code, sanction_record_id, reason, expires_at)
    VALUES (p_user_id, p_code, v_record.sanction_record_id, p_reason, p_expires_at)
    ON CONFLICT (user_id, code) DO UPDATE
        SET sanction_record_id = excluded.sanction_record_id, reason = excluded.reason, expires_at = excluded.expires_at;
    IF p_code = 'permanent_block' THEN
        UPDATE accounts SET permanent_block = true WHERE user_id = p_user_id;
        PERFORM lobby_release(p_user_id, 'blocked');
        PERFORM session_revoke_all(p_user_id, 'account_blocked');
    ELSIF p_code = 'login_block' THEN
        PERFORM session_revoke_all(p_user_id, 'revoked_by_admin');
    END IF;
    RETURN v_record;
END;
$$;
COMMENT ON FUNCTION backend.sanction_apply(uuid, text, text, text, timestamptz) IS
    'Puts a sanction in force, in place of one of its kind, with what follows from it. The account is locked by the caller.';

CREATE FUNCTION backend.sanction_lift(p_user_id uuid, p_code text, p_reason text, p_actor text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT is_sanctioned(p_user_id, p_code) THEN
        PERFORM fail(404, 'sanction_not_found', 'This sanction is not in force.');
    END IF;
    INSERT INTO sanction_records (user_id, code, action, reason, actor) VALUES (p_user_id, p_code, 'lift', p_reason, p_actor);
    DELETE FROM sanction_active WHERE user_id = p_user_id AND code = p_code;
    IF p_code = 'permanent_block' THEN
        UPDATE accounts SET permanent_block = false WHERE user_id = p_user_id;
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.sanction_lift(uuid, text, text, text) IS
    'Ends a sanction that is in force; what it released does not come back. The account is locked by the caller. GX404 sanction_not_found.';

CREATE FUNCTION backend.limit_apply(p_user_id uuid, p_code text, p_value integer, p_reason text, p_actor text, p_expires_at timestamptz)
RETURNS backend.limit_records
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_record limit_records%ROWTYPE;
BEGIN
    INSERT INTO limit_records (user_id, code, action, value, reason, actor, expires_at)
    VALUES (p_user_id, p_code, 'apply', p_value, p_reason, p_actor, p_expires_at)
    RETURNING * INTO v_record;
    INSERT INTO limit_active (user_id, code, limit_record_id, value, expires_at)
    VALUES (p_user_id, p_code, v_record.limit_record_id, p_value, p_expires_at)
    ON CONFLICT (user_id, code) DO UPDATE
        SET limit_record_id = excluded.limit_record_id, value = excluded.value, expires_at = excluded.expires_at;
    RETURN v_record;
END;
$$;
COMMENT ON FUNCTION backend.limit_apply(uuid, text, integer, text, text, timestamptz) IS
    'Gives a person a number of their own instead of their tier''s, in place of one they have. The account is locked by the caller.';

CREATE FUNCTION backend.limit_clear(p_user_id uuid, p_code text, p_reason text, p_actor text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM limit_active AS l WHERE l.user_id = p_user_id AND l.code = p_code AND NOT is_over(l.expires_at)) THEN
        PERFORM fail(404, 'limit_not_found', 'This limit is not in force.');
    END IF;
    INSERT INTO limit_records (user_id, code, action, reason, actor) VALUES (p_user_id, p_code, 'clear', p_reason, p_actor);
    DELETE FROM limit_active WHERE user_id = p_user_id AND code = p_code;
END;
$$;
COMMENT ON FUNCTION backend.limit_clear(uuid, text, text, text) IS
    'Takes a person''s own number away: their tier''s counts again. The account is locked by the caller. GX404 limit_not_found.';

COMMIT;
