-- Deploy galaxy-backend:backend/accounts to pg
-- requires: backend/settings
-- requires: backend/errors
-- requires: backend/push
-- requires: backend/invariants

-- Why: a person, the ways in that belong to them, what they have paid for, and what has been taken from them. Entitlements,
-- sanctions and limits are each a record (what was decided, for ever) and what is in force now.

BEGIN;
SET LOCAL ROLE backend_owner;

-- pg_timezone_names reads the file system on every use; this is what it said when the change was deployed.
CREATE TABLE backend.time_zones (
    time_zone text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.time_zones IS 'The IANA time zones that a person may choose: those that Postgres knows.';
INSERT INTO backend.time_zones (time_zone)
SELECT z.name FROM pg_timezone_names AS z WHERE z.name !~ '^(posix|right)/' AND z.name NOT IN ('posixrules', 'localtime', 'Factory');

CREATE FUNCTION backend.is_seen(p_text text) RETURNS boolean
LANGUAGE sql IMMUTABLE SECURITY INVOKER
RETURN p_text !~ '^[\s\u0085\u00a0\u00ad\u034f\u061c\u115f\u1160\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u2800\u3000\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]*$';
COMMENT ON FUNCTION backend.is_seen(text) IS 'Whether a text for people has more than blanks and what is not shown at all. The contract''s Reason says the same.';

CREATE FUNCTION backend.display_name_clean(p_name text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    -- Every space of Unicode, not only the ASCII one.
    v_name text := btrim(normalize(p_name, NFC), E' \u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000');
BEGIN
    -- Controls, line ends, and what turns the direction of the text that comes after the name.
    IF v_name ~ '[\u0001-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]' THEN
        RETURN NULL;
    END IF;
    IF NOT is_seen(v_name) OR length(v_name) > 64 THEN
        RETURN NULL;
    END IF;
    RETURN v_name;
END;
$$;
COMMENT ON FUNCTION backend.display_name_clean(text) IS 'A display name as it is kept: NFC, trimmed; null for one that may not be.';

CREATE TABLE backend.accounts (
    user_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    user_name text NOT NULL,
    email text CONSTRAINT accounts_email_is_normalised CHECK (email = lower(email) AND length(email) <= 254),
    email_hash bytea,
    display_name text NOT NULL CONSTRAINT accounts_display_name_has_1_to_64_characters CHECK (length(display_name) BETWEEN 1 AND 64),
    preferred_language text NOT NULL DEFAULT 'en'
        CONSTRAINT accounts_language_is_a_tag CHECK (preferred_language ~ '^[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8})*$'),
    time_zone text NOT NULL DEFAULT 'UTC'
        CONSTRAINT accounts_time_zone_is_known REFERENCES backend.time_zones,
    turn_reminder text NOT NULL DEFAULT 'off'
        CONSTRAINT accounts_turn_reminder_is_known CHECK (turn_reminder IN ('off', 'each', 'daily')),
    declared_country text CONSTRAINT accounts_country_is_iso_3166 CHECK (declared_country ~ '^[A-Z]{2}$'),
    permanent_block boolean NOT NULL DEFAULT false,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT accounts_user_name_is_unique UNIQUE (user_name),
    CONSTRAINT accounts_display_name_is_clean CHECK ((display_name = backend.display_name_clean(display_name)) IS TRUE),
    CONSTRAINT accounts_deleted_keeps_no_email CHECK (deleted_at IS NULL OR email IS NULL)
);
COMMENT ON TABLE backend.accounts IS 'A person. Never deleted as a row: deleted_at says that they are gone.';
COMMENT ON COLUMN backend.accounts.turn_reminder IS
    'Whether turns that came while they were away are told by mail: an hour after each, or at eight in the morning of their zone.';
COMMENT ON COLUMN backend.accounts.declared_country IS 'Where the registration came from (ISO 3166-1 alpha-2); set then and never again.';
COMMENT ON COLUMN backend.accounts.email_hash IS 'SHA-256 of the address of a deleted account.';
CREATE UNIQUE INDEX accounts_email_is_unique_among_the_live ON backend.accounts (email) WHERE deleted_at IS NULL;
CREATE INDEX accounts_by_time_zone ON backend.accounts (time_zone);
CREATE TRIGGER touch BEFORE UPDATE ON backend.accounts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.identities (
    provider text NOT NULL CONSTRAINT identities_provider_is_known CHECK (provider IN ('email', 'telegram')),
    subject text NOT NULL CONSTRAINT identities_subject_has_1_to_254_characters CHECK (length(subject) BETWEEN 1 AND 254),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (provider, subject),
    -- Also how a person's ways in are found.
    CONSTRAINT identities_one_per_person_and_provider UNIQUE (user_id, provider)
);
COMMENT ON TABLE backend.identities IS 'A way in that belongs to an account.';

CREATE TABLE backend.entitlement_tiers (
    tier text PRIMARY KEY CONSTRAINT entitlement_tiers_tier_is_snake_case CHECK (tier ~ '^[a-z][a-z0-9_]*$'),
    is_paid boolean NOT NULL,
    duration interval,
    max_registered_race_names integer NOT NULL CONSTRAINT entitlement_tiers_race_names_not_negative CHECK (max_registered_race_names >= 0),
    max_owned_private_games integer NOT NULL CONSTRAINT entitlement_tiers_private_games_not_negative CHECK (max_owned_private_games >= 0),
    max_pending_applications integer NOT NULL CONSTRAINT entitlement_tiers_applications_not_negative CHECK (max_pending_applications >= 0),
    max_active_memberships integer NOT NULL CONSTRAINT entitlement_tiers_memberships_not_negative CHECK (max_active_memberships >= 0),
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT entitlement_tiers_free_has_no_end CHECK (tier <> 'free' OR duration IS NULL)
);
COMMENT ON TABLE backend.entitlement_tiers IS 'What a person may have, by tier; duration is null where a grant has no end of its own.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.entitlement_tiers FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();
INSERT INTO backend.entitlement_tiers
    (tier, is_paid, duration, max_registered_race_names, max_owned_private_games, max_pending_applications, max_active_memberships)
VALUES
    ('free', false, NULL, 1, 1, 3, 3),
    ('monthly', true, '30 days', 5, 3, 10, 10),
    ('yearly', true, '365 days', 5, 3, 10, 10),
    ('permanent', true, NULL, 5, 3, 10, 10);

CREATE TABLE backend.entitlement_records (
    entitlement_record_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    tier text NOT NULL REFERENCES backend.entitlement_tiers,
    source text NOT NULL CONSTRAINT entitlement_records_source_is_known CHECK (source IN ('registration', 'admin', 'expiry')),
    actor text,
    reason_code text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT entitlement_records_end_after_they_start CHECK (ends_at > starts_at)
);
COMMENT ON TABLE backend.entitlement_records IS 'Every grant of a tier, for ever.';
-- The newest first: it decides what is in force.
CREATE INDEX entitlement_records_by_user ON backend.entitlement_records (user_id, entitlement_record_id);
CREATE INDEX entitlement_records_by_tier ON backend.entitlement_records (tier);

CREATE TABLE backend.entitlement_snapshots (
    user_id uuid PRIMARY KEY REFERENCES backend.accounts,
    entitlement_record_id uuid NOT NULL REFERENCES backend.entitlement_records,
    tier text NOT NULL REFERENCES backend.entitlement_tiers,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    changes_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.entitlement_snapshots IS
    'The grant that was in force for a person when it was last written down. entitlement_in_force() says what is now.';
COMMENT ON COLUMN backend.entitlement_snapshots.changes_at IS 'When another grant comes into force, by its begin or this one''s end; null for never.';
CREATE INDEX entitlement_snapshots_by_record ON backend.entitlement_snapshots (entitlement_record_id);
CREATE INDEX entitlement_snapshots_by_tier ON backend.entitlement_snapshots (tier);
-- What is to be written down anew.
CREATE INDEX entitlement_snapshots_by_change ON backend.entitlement_snapshots (changes_at) WHERE changes_at IS NOT NULL;
CREATE TRIGGER touch BEFORE UPDATE ON backend.entitlement_snapshots FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE DOMAIN backend.sanction_code AS text CONSTRAINT sanction_code_is_known CHECK (VALUE IN (
    'login_block', 'private_game_create_block', 'private_game_manage_block', 'game_join_block', 'profile_update_block',
    'diplomail_block', 'permanent_block'));
COMMENT ON DOMAIN backend.sanction_code IS 'What can be taken from a person.';

CREATE TABLE backend.sanction_records (
    sanction_record_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    code backend.sanction_code NOT NULL,
    action text NOT NULL CONSTRAINT sanction_records_action_is_known CHECK (action IN ('apply', 'lift')),
    reason text NOT NULL CONSTRAINT sanction_records_reason_has_1_to_500_characters CHECK (length(reason) <= 500 AND backend.is_seen(reason)),
    actor text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT sanction_records_permanent_block_has_no_end CHECK (code <> 'permanent_block' OR expires_at IS NULL)
);
COMMENT ON TABLE backend.sanction_records IS 'Every sanction applied or lifted, for ever.';
CREATE INDEX sanction_records_by_user ON backend.sanction_records (user_id, sanction_record_id);

CREATE TABLE backend.sanction_active (
    user_id uuid NOT NULL REFERENCES backend.accounts,
    code backend.sanction_code NOT NULL,
    sanction_record_id uuid NOT NULL REFERENCES backend.sanction_records,
    reason text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (user_id, code)
);
COMMENT ON TABLE backend.sanction_active IS 'What is in force; one whose expires_at is over has no effect, with no job needed.';
CREATE INDEX sanction_active_by_record ON backend.sanction_active (sanction_record_id);
CREATE TRIGGER touch BEFORE UPDATE ON backend.sanction_active FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE DOMAIN backend.limit_code AS text CONSTRAINT limit_code_is_known CHECK (VALUE IN (
    'max_owned_private_games', 'max_pending_applications', 'max_active_memberships', 'max_registered_race_names'));
COMMENT ON DOMAIN backend.limit_code IS 'A number of a tier that can be another one for one person.';

CREATE TABLE backend.limit_records (
    limit_record_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    user_id uuid NOT NULL REFERENCES backend.accounts,
    code backend.limit_code NOT NULL,
    action text NOT NULL CONSTRAINT limit_records_action_is_known CHECK (action IN ('apply', 'clear')),
    value integer CONSTRAINT limit_records_value_is_not_negative CHECK (value >= 0),
    reason text NOT NULL CONSTRAINT limit_records_reason_has_1_to_500_characters CHECK (length(reason) <= 500 AND backend.is_seen(reason)),
    actor text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT limit_records_apply_has_a_value CHECK ((action = 'apply') = (value IS NOT NULL))
);
COMMENT ON TABLE backend.limit_records IS 'Every limit set or cleared, for ever.';
CREATE INDEX limit_records_by_user ON backend.limit_records (user_id, limit_record_id);

CREATE TABLE backend.limit_active (
    user_id uuid NOT NULL REFERENCES backend.accounts,
    code backend.limit_code NOT NULL,
    limit_record_id uuid NOT NULL REFERENCES backend.limit_records,
    value integer NOT NULL CONSTRAINT limit_active_value_is_not_negative CHECK (value >= 0),
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (user_id, code)
);
COMMENT ON TABLE backend.limit_active IS 'The numbers in force for one person instead of their tier''s.';
CREATE INDEX limit_active_by_record ON backend.limit_active (limit_record_id);
CREATE TRIGGER touch BEFORE UPDATE ON backend.limit_active FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.is_over(p_at timestamptz) RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN p_at IS NOT NULL AND p_at <= backend.now();
COMMENT ON FUNCTION backend.is_over(timestamptz) IS 'Whether an end has come; null never does.';

CREATE FUNCTION backend.moment_to_come(p_body jsonb, p_name text) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_at timestamptz := (p_body ->> p_name)::timestamptz;
BEGIN
    IF is_over(v_at) THEN
        PERFORM fail(400, 'invalid_request', 'The request is malformed.',
                     jsonb_build_array(jsonb_build_object('path', p_name, 'problem', 'is not in the future')));
    END IF;
    RETURN v_at;
END;
$$;
COMMENT ON FUNCTION backend.moment_to_come(jsonb, text) IS 'A field of a body that is an end; null for none. GX400 invalid_request for one that has come.';

CREATE FUNCTION backend.is_sanctioned(p_user_id uuid, p_code text) RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN EXISTS (SELECT FROM backend.sanction_active AS s
                WHERE s.user_id = p_user_id AND s.code = p_code AND NOT backend.is_over(s.expires_at));
COMMENT ON FUNCTION backend.is_sanctioned(uuid, text) IS 'Whether a sanction is in force for a person.';

CREATE FUNCTION backend.block_refuse(p_account backend.accounts) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    IF p_account.permanent_block THEN
        PERFORM fail(403, 'account_blocked', 'This account is blocked for good.');
    ELSIF is_sanctioned(p_account.user_id, 'login_block') THEN
        PERFORM fail(403, 'sanctioned', 'This account may not sign in at present.', '{"sanction": "login_block"}');
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.block_refuse(backend.accounts) IS
    'Refuses what a person who may not sign in may not do either. GX403 account_blocked, sanctioned.';

CREATE FUNCTION backend.account_require(p_user_id uuid) RETURNS backend.accounts
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
BEGIN
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id;
    IF NOT FOUND THEN
        PERFORM fail(404, 'account_not_found', 'There is no such account.');
    ELSIF v_account.deleted_at IS NOT NULL THEN
        PERFORM fail(403, 'account_deleted', 'This account has been deleted.');
    END IF;
    PERFORM block_refuse(v_account);
    RETURN v_account;
END;
$$;
COMMENT ON FUNCTION backend.account_require(uuid) IS
    'The account of a caller of the user group; every function of that group begins with it. GX404 account_not_found, GX403 account_deleted, account_blocked, sanctioned.';

CREATE FUNCTION backend.user_name_random() RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    -- The first five bytes of a random UUID are random to the last bit: eight digits of base 32.
    v_bits bigint := ('x' || left(replace(gen_random_uuid()::text, '-', ''), 10))::bit(40)::bigint;
    v_name text := '';
BEGIN
    FOR i IN 0..7 LOOP
        v_name := v_name || substr('0123456789abcdefghjkmnpqrstvwxyz', ((v_bits >> (5 * i)) & 31)::integer + 1, 1);
    END LOOP;
    RETURN 'player-' || v_name;
END;
$$;
COMMENT ON FUNCTION backend.user_name_random() IS 'player- and eight random characters of Crockford''s base 32, lowercase.';

CREATE FUNCTION backend.identity_lock(p_provider text, p_subject text) RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
RETURN pg_advisory_xact_lock(hashtextextended(p_provider || ':' || p_subject, 7));
COMMENT ON FUNCTION backend.identity_lock(text, text) IS
    'Serialises, to the end of the transaction, those who find or create the account of one way in. Taken before any row.';

CREATE FUNCTION backend.account_find(p_provider text, p_subject text) RETURNS backend.accounts
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_user_id uuid;
    v_account accounts%ROWTYPE;
BEGIN
    LOOP
        SELECT i.user_id INTO v_user_id FROM identities AS i WHERE i.provider = p_provider AND i.subject = p_subject;
        EXIT WHEN NOT FOUND;
        -- Locked: a session must not be opened while a block or a deletion goes on beside it.
        SELECT * INTO v_account FROM accounts WHERE user_id = v_user_id FOR NO KEY UPDATE;
        -- Whoever was waited for may have deleted the account, and freed the way in.
        IF EXISTS (SELECT FROM identities AS i WHERE i.provider = p_provider AND i.subject = p_subject AND i.user_id = v_user_id) THEN
            RETURN v_account;
        END IF;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.account_find(text, text) IS 'The account that a way in belongs to, locked; null for none.';

CREATE FUNCTION backend.entitlement_in_force(p_user_id uuid) RETURNS backend.entitlement_records
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_record entitlement_records%ROWTYPE;
    v_since timestamptz;
BEGIN
    -- What follows when nothing was granted, at registration and after an expiry, outranks no grant, however new it is.
    SELECT * INTO v_record FROM entitlement_records AS r
     WHERE r.user_id = p_user_id AND r.starts_at <= backend.now() AND NOT is_over(r.ends_at)
     ORDER BY r.source = 'admin' DESC, r.entitlement_record_id DESC LIMIT 1;
    -- What was hidden by a newer grant is in force from that one's end on.
    SELECT max(r.ends_at) INTO v_since FROM entitlement_records AS r
     WHERE r.user_id = p_user_id AND is_over(r.ends_at)
       AND (v_record.source IS DISTINCT FROM 'admin' OR r.entitlement_record_id > v_record.entitlement_record_id);
    v_record.user_id := p_user_id;
    v_record.tier := coalesce(v_record.tier, 'free');
    v_record.starts_at := greatest(v_record.starts_at, v_since);
    RETURN v_record;
END;
$$;
COMMENT ON FUNCTION backend.entitlement_in_force(uuid) IS
    'The newest grant that has begun and not ended, from when on it is in force; the free tier where there is none. No job is needed for a begin or an end.';

CREATE FUNCTION backend.entitlement_settle(p_user_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_record entitlement_records%ROWTYPE := entitlement_in_force(p_user_id);
    v_next timestamptz;
BEGIN
    -- Grants have ended and free follows: it is in force from later on than any record says.
    INSERT INTO entitlement_records (user_id, tier, source, reason_code, starts_at)
    SELECT p_user_id, r.tier, 'expiry', 'expired', v_record.starts_at
      FROM entitlement_records AS r
     WHERE r.entitlement_record_id = v_record.entitlement_record_id AND r.source <> 'admin' AND r.starts_at < v_record.starts_at;
    v_record := entitlement_in_force(p_user_id);
    SELECT least(v_record.ends_at, min(r.starts_at)) INTO v_next
      FROM entitlement_records AS r WHERE r.user_id = p_user_id AND r.starts_at > backend.now();
    INSERT INTO entitlement_snapshots (user_id, entitlement_record_id, tier, starts_at, ends_at, changes_at)
    SELECT p_user_id, r.entitlement_record_id, r.tier, r.starts_at, r.ends_at, v_next
      FROM entitlement_records AS r WHERE r.entitlement_record_id = v_record.entitlement_record_id
    ON CONFLICT (user_id) DO UPDATE
        SET entitlement_record_id = excluded.entitlement_record_id, tier = excluded.tier, starts_at = excluded.starts_at,
            ends_at = excluded.ends_at, changes_at = excluded.changes_at;
END;
$$;
COMMENT ON FUNCTION backend.entitlement_settle(uuid) IS
    'Writes down what is in force for a person, and that free followed a grant that ended; again changes nothing. The account is locked by the caller.';

CREATE FUNCTION backend.account_create(
    p_provider text, p_subject text, p_email text, p_language text, p_time_zone text, p_country text, p_display_name text DEFAULT NULL
) RETURNS backend.accounts
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_name text;
BEGIN
    FOR i IN 1..setting('username_max_retries')::integer LOOP
        v_name := user_name_random();
        INSERT INTO accounts (user_name, email, display_name, preferred_language, time_zone, declared_country)
        VALUES (v_name, p_email, coalesce(display_name_clean(p_display_name), v_name), coalesce(p_language, 'en'), p_time_zone, p_country)
        ON CONFLICT (user_name) DO NOTHING
        RETURNING * INTO v_account;
        EXIT WHEN FOUND;
    END LOOP;
    IF v_account.user_id IS NULL THEN
        PERFORM fail(503, 'unavailable', 'No free user name was found; try again.');
    END IF;
    INSERT INTO identities (provider, subject, user_id) VALUES (p_provider, p_subject, v_account.user_id);
    INSERT INTO entitlement_records (user_id, tier, source, reason_code, starts_at)
    VALUES (v_account.user_id, 'free', 'registration', 'registration', v_account.created_at);
    PERFORM entitlement_settle(v_account.user_id);
    RETURN v_account;
END;
$$;
COMMENT ON FUNCTION backend.account_create(text, text, text, text, text, text, text) IS
    'A new account with a way in and the free tier, called as its user name where the display name may not be. Call under identity_lock. GX503 unavailable when no user name is free; 23505 when the way in is taken.';

CREATE FUNCTION backend.account_json(p_account backend.accounts) RETURNS jsonb
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_entitlement jsonb;
BEGIN
    SELECT jsonb_build_object(
               'tier', t.tier, 'is_paid', t.is_paid, 'starts_at', ts(e.starts_at), 'ends_at', ts(e.ends_at),
               'max_registered_race_names', t.max_registered_race_names,
               'max_owned_private_games', t.max_owned_private_games,
               'max_pending_applications', t.max_pending_applications,
               'max_active_memberships', t.max_active_memberships)
      INTO v_entitlement
      FROM entitlement_in_force(p_account.user_id) AS e JOIN entitlement_tiers AS t ON t.tier = e.tier;
    RETURN jsonb_build_object(
        'user_id', p_account.user_id,
        'user_name', p_account.user_name,
        'email', p_account.email,
        'display_name', p_account.display_name,
        'preferred_language', p_account.preferred_language,
        'time_zone', p_account.time_zone,
        'declared_country', p_account.declared_country,
        'entitlement', v_entitlement,
        'sanctions', (SELECT coalesce(jsonb_agg(jsonb_build_object('code', s.code, 'reason', s.reason, 'expires_at', ts(s.expires_at))
                                                ORDER BY s.code), '[]')
                        FROM sanction_active AS s WHERE s.user_id = p_account.user_id AND NOT is_over(s.expires_at)),
        'limits', (SELECT coalesce(jsonb_agg(jsonb_build_object('code', l.code, 'value', l.value, 'expires_at', ts(l.expires_at))
                                             ORDER BY l.code), '[]')
                     FROM limit_active AS l WHERE l.user_id = p_account.user_id AND NOT is_over(l.expires_at)),
        'identities', (SELECT coalesce(jsonb_agg(jsonb_build_object('provider', i.provider, 'subject', i.subject)
                                                 ORDER BY i.provider, i.subject), '[]')
                         FROM identities AS i WHERE i.user_id = p_account.user_id),
        'created_at', ts(p_account.created_at),
        'updated_at', ts(p_account.updated_at)
    );
END;
$$;
COMMENT ON FUNCTION backend.account_json(backend.accounts) IS 'The account object of the contract.';

CREATE FUNCTION backend.account_internal_json(p_account backend.accounts) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN backend.account_json(p_account) || jsonb_build_object(
    'permanent_block', p_account.permanent_block,
    'login_blocked', backend.is_sanctioned(p_account.user_id, 'login_block'),
    'deleted_at', backend.ts(p_account.deleted_at));
COMMENT ON FUNCTION backend.account_internal_json(backend.accounts) IS 'The account object for the gateway and administrators.';

CREATE VIEW backend.invariants_accounts AS
SELECT 'account_without_entitlement' AS invariant, a.user_id AS object_id, a.user_name AS details
  FROM backend.accounts AS a
 WHERE NOT EXISTS (SELECT FROM backend.entitlement_snapshots AS s WHERE s.user_id = a.user_id)
UNION ALL
SELECT 'live_account_without_identity', a.user_id, a.user_name
  FROM backend.accounts AS a
 WHERE a.deleted_at IS NULL AND NOT EXISTS (SELECT FROM backend.identities AS i WHERE i.user_id = a.user_id)
UNION ALL
SELECT 'deleted_account_with_identity', a.user_id, a.user_name
  FROM backend.accounts AS a
 WHERE a.deleted_at IS NOT NULL AND EXISTS (SELECT FROM backend.identities AS i WHERE i.user_id = a.user_id)
UNION ALL
SELECT 'permanent_block_without_sanction', a.user_id, a.user_name
  FROM backend.accounts AS a
 WHERE a.permanent_block AND NOT EXISTS (
     SELECT FROM backend.sanction_active AS s WHERE s.user_id = a.user_id AND s.code = 'permanent_block')
UNION ALL
SELECT 'permanent_block_that_is_not_in_force', a.user_id, a.user_name
  FROM backend.accounts AS a JOIN backend.sanction_active AS s USING (user_id)
 WHERE s.code = 'permanent_block' AND NOT a.permanent_block
UNION ALL
SELECT 'snapshot_and_record_disagree', s.user_id, s.tier
  FROM backend.entitlement_snapshots AS s JOIN backend.entitlement_records AS r USING (entitlement_record_id)
 WHERE (s.user_id, s.tier, s.starts_at, s.ends_at) IS DISTINCT FROM (r.user_id, r.tier, r.starts_at, r.ends_at)
UNION ALL
SELECT 'snapshot_of_an_older_grant', s.user_id, s.tier
  FROM backend.entitlement_snapshots AS s
 WHERE (s.changes_at IS NULL OR s.changes_at > backend.now())
   AND s.entitlement_record_id <> (backend.entitlement_in_force(s.user_id)).entitlement_record_id
UNION ALL
SELECT 'free_although_a_grant_is_in_force', s.user_id, s.tier
  FROM backend.entitlement_snapshots AS s JOIN backend.entitlement_records AS r USING (entitlement_record_id)
 WHERE r.source <> 'admin' AND (s.changes_at IS NULL OR s.changes_at > backend.now())
   AND EXISTS (SELECT FROM backend.entitlement_records AS g
                WHERE g.user_id = s.user_id AND g.source = 'admin' AND g.starts_at <= backend.now() AND NOT backend.is_over(g.ends_at))
UNION ALL
SELECT 'sanction_and_record_disagree', s.user_id, s.code
  FROM backend.sanction_active AS s JOIN backend.sanction_records AS r USING (sanction_record_id)
 WHERE (s.user_id, s.code, s.expires_at, 'apply') IS DISTINCT FROM (r.user_id, r.code, r.expires_at, r.action)
UNION ALL
SELECT 'limit_and_record_disagree', l.user_id, l.code
  FROM backend.limit_active AS l JOIN backend.limit_records AS r USING (limit_record_id)
 WHERE (l.user_id, l.code, l.value, l.expires_at, 'apply') IS DISTINCT FROM (r.user_id, r.code, r.value, r.expires_at, r.action)
UNION ALL
SELECT 'deleted_account_with_personal_data', a.user_id, a.user_name
  FROM backend.accounts AS a
 WHERE a.deleted_at IS NOT NULL AND (a.display_name <> 'deleted' OR a.declared_country IS NOT NULL);
COMMENT ON VIEW backend.invariants_accounts IS 'What must never be seen in accounts.';

COMMIT;
