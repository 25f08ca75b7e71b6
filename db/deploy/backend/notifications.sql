-- Deploy galaxy-backend:backend/notifications to pg
-- requires: backend/mail_templates
-- requires: backend/push
-- requires: backend/games
-- requires: backend/sessions
-- requires: backend/metrics

-- Why: a request to tell somebody something. The catalogue of kinds is closed and is data; what is asked for becomes a
-- notification with a route per channel, in the transaction of its cause: a push event, or a mail as it is to be read. A malformed
-- intent, or a mail that cannot be made, is kept aside and harms nobody.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('notification_route', 'open', NULL, 'pending', 'To be delivered.'),
    ('notification_route', 'deliver', 'pending', 'delivered', 'It is a push event, or a mail in the outbox.'),
    ('notification_route', 'deliver', 'retrying', 'delivered', 'It is a push event, or a mail in the outbox.'),
    ('notification_route', 'retry', 'pending', 'retrying', 'It could not be delivered, and is tried again.'),
    ('notification_route', 'retry', 'retrying', 'retrying', 'It could not be delivered, and is tried again.'),
    ('notification_route', 'give-up', 'pending', 'dead_lettered', 'It could not be delivered so often.'),
    ('notification_route', 'give-up', 'retrying', 'dead_lettered', 'It could not be delivered so often.'),
    ('notification_route', 'skip', 'pending', 'skipped', 'There is no address, or it is not wanted.'),
    ('notification_route', 'skip', 'retrying', 'skipped', 'There is no address, or it is not wanted.'),
    ('notification_route', 'cancel', 'pending', 'cancelled', 'The person is gone.'),
    ('notification_route', 'cancel', 'retrying', 'cancelled', 'The person is gone.'),
    ('notification_route', 'retry-dead', 'dead_lettered', 'pending', 'An administrator tries it again.');

CREATE TABLE backend.notification_kinds (
    kind text PRIMARY KEY CONSTRAINT notification_kinds_kind_is_dotted CHECK (kind ~ '^[a-z_]+(\.[a-z_]+)+$'),
    channels text[] NOT NULL CONSTRAINT notification_kinds_channels_are_known CHECK (channels <@ ARRAY['push', 'email']),
    is_for_administrators boolean NOT NULL DEFAULT false,
    is_optional boolean NOT NULL,
    has_reminder boolean NOT NULL DEFAULT false,
    mail_daily_by text,
    fields jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT notification_kinds_administrators_have_no_choice CHECK (NOT (is_for_administrators AND (is_optional OR has_reminder))),
    CONSTRAINT notification_kinds_reminder_is_the_only_mail CHECK (NOT (has_reminder AND 'email' = ANY (channels)))
);
COMMENT ON TABLE backend.notification_kinds IS 'The closed catalogue of what people are told.';
COMMENT ON COLUMN backend.notification_kinds.is_optional IS 'Whether people choose its channels; what was decided about them they are told.';
COMMENT ON COLUMN backend.notification_kinds.has_reminder IS 'Whether it also goes by mail to those who asked for turn reminders.';
COMMENT ON COLUMN backend.notification_kinds.mail_daily_by IS
    'A field of the payload: with the same value of it, somebody gets one mail a day at most. Whoever causes it could otherwise have us flood them.';
COMMENT ON COLUMN backend.notification_kinds.fields IS 'The payload''s fields and their types: uuid, text, integer or time; one with a question mark may be null.';
INSERT INTO backend.notification_kinds (kind, channels, is_for_administrators, is_optional, has_reminder, fields) VALUES
    ('lobby.invite.received', '{push,email}', false, true, false, '{"game_id": "uuid", "inviter_user_id": "uuid?"}'),
    ('lobby.invite.revoked', '{push}', false, true, false, '{"game_id": "uuid"}'),
    ('lobby.application.submitted', '{push}', false, true, false, '{"game_id": "uuid", "application_id": "uuid"}'),
    ('lobby.application.approved', '{push,email}', false, true, false, '{"game_id": "uuid"}'),
    ('lobby.application.rejected', '{push,email}', false, true, false, '{"game_id": "uuid"}'),
    ('lobby.membership.removed', '{push,email}', false, false, false, '{"game_id": "uuid", "reason": "text"}'),
    ('lobby.membership.blocked', '{push,email}', false, false, false, '{"game_id": "uuid"}'),
    ('lobby.race_name.registered', '{push}', false, true, false, '{"race_name": "text"}'),
    ('lobby.race_name.expired', '{push}', false, true, false, '{"race_name": "text"}'),
    ('lobby.race_name.pending', '{push,email}', false, true, false, '{"race_name": "text", "expires_at": "time"}'),
    ('runtime.image_pull_failed', '{email}', true, false, false, '{"game_id": "uuid", "image_ref": "text"}'),
    ('runtime.container_start_failed', '{email}', true, false, false, '{"game_id": "uuid"}'),
    ('runtime.start_config_invalid', '{email}', true, false, false, '{"game_id": "uuid", "reason": "text"}'),
    ('game.turn.ready', '{push}', false, true, true, '{"game_id": "uuid", "turn": "integer"}'),
    ('game.paused', '{push}', false, true, false, '{"game_id": "uuid", "turn": "integer", "reason": "text"}'),
    ('game.started', '{push,email}', false, true, false, '{"game_id": "uuid"}'),
    ('game.finished', '{push,email}', false, true, false, '{"game_id": "uuid"}'),
    ('game.generation.failed', '{email}', true, false, false, '{"game_id": "uuid", "turn": "integer", "reason": "text"}'),
    ('diplomail.received', '{push}', false, true, false, '{"game_id": "uuid", "message_id": "uuid"}'),
    ('mail.dead_lettered', '{email}', true, false, false, '{"delivery_id": "uuid", "template_id": "text"}');
UPDATE backend.notification_kinds SET mail_daily_by = 'inviter_user_id' WHERE kind = 'lobby.invite.received';

CREATE TABLE backend.notifications (
    notification_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    kind text NOT NULL REFERENCES backend.notification_kinds,
    idempotency_key text NOT NULL CONSTRAINT notifications_key_has_1_to_200_characters CHECK (length(idempotency_key) BETWEEN 1 AND 200),
    user_id uuid REFERENCES backend.accounts,
    payload jsonb NOT NULL,
    request_id text,
    trace_id text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    -- For administrators user_id is null, and there too one key is one notification.
    CONSTRAINT notifications_one_per_kind_key_and_person UNIQUE NULLS NOT DISTINCT (kind, idempotency_key, user_id)
);
COMMENT ON TABLE backend.notifications IS 'What somebody is told; user_id is null for administrators.';
CREATE INDEX notifications_by_user ON backend.notifications (user_id, notification_id);
-- What retention lets go.
CREATE INDEX notifications_by_age ON backend.notifications (created_at);
-- How many of a kind there were lately.
CREATE INDEX notifications_by_kind ON backend.notifications (kind, created_at);

CREATE TABLE backend.notification_routes (
    route_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    notification_id uuid NOT NULL REFERENCES backend.notifications,
    channel text NOT NULL CONSTRAINT notification_routes_channel_is_known CHECK (channel IN ('push', 'email')),
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT backend.now(),
    is_digest boolean NOT NULL DEFAULT false,
    last_error text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT notification_routes_one_per_channel UNIQUE (notification_id, channel)
);
COMMENT ON TABLE backend.notification_routes IS 'A channel by which a notification goes. Its id is the push event''s, and the key of its mail.';
COMMENT ON COLUMN backend.notification_routes.is_digest IS 'It waits for the mail of the day, which is one for all of a person''s.';
COMMENT ON COLUMN backend.notification_routes.last_error IS 'Why it was not delivered: an SQLSTATE and its message, or why it was skipped.';
-- What is still to be delivered, each by itself and by the day.
CREATE INDEX notification_routes_due ON backend.notification_routes (next_attempt_at)
    WHERE status IN ('pending', 'retrying') AND NOT is_digest;
CREATE INDEX notification_routes_due_in_a_digest ON backend.notification_routes (next_attempt_at)
    WHERE status IN ('pending', 'retrying') AND is_digest;
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.notification_routes
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('notification_route', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.notification_routes FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.notification_dead_letters (
    route_id uuid PRIMARY KEY REFERENCES backend.notification_routes,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.notification_dead_letters IS 'Routes that were given up; one row while they are.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.notification_dead_letters FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.notification_opt_outs (
    user_id uuid NOT NULL REFERENCES backend.accounts,
    kind text NOT NULL REFERENCES backend.notification_kinds,
    channel text NOT NULL CONSTRAINT notification_opt_outs_channel_is_known CHECK (channel IN ('push', 'email')),
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (user_id, kind, channel)
);
COMMENT ON TABLE backend.notification_opt_outs IS 'The channels by which somebody does not want to be told of a kind.';
CREATE INDEX notification_opt_outs_by_kind ON backend.notification_opt_outs (kind);

CREATE TABLE backend.notification_malformed_intents (
    malformed_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    kind text NOT NULL,
    idempotency_key text,
    user_id uuid,
    payload jsonb,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
CREATE INDEX notification_malformed_intents_by_age ON backend.notification_malformed_intents (created_at);
COMMENT ON TABLE backend.notification_malformed_intents IS 'Intents that no notification could be made of, and why. user_id is as it was given.';

CREATE FUNCTION backend.is_time(p_text text) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RETURN p_text ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$' AND p_text::timestamptz IS NOT NULL;
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN
    RETURN false;
END;
$$;
COMMENT ON FUNCTION backend.is_time(text) IS 'Whether a text is a moment as the contract writes them.';

CREATE FUNCTION backend.notification_problem(p_kind text, p_payload jsonb) RETURNS text
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_fields jsonb := (SELECT k.fields FROM notification_kinds AS k WHERE k.kind = p_kind);
    v_name text;
    v_type text;
    v_value text;
BEGIN
    IF v_fields IS NULL THEN
        RETURN 'the kind is not in the catalogue';
    END IF;
    IF jsonb_typeof(p_payload) IS DISTINCT FROM 'object' THEN
        RETURN 'the payload is not an object';
    END IF;
    FOR v_name, v_type IN SELECT f.field_name, f.field_type FROM jsonb_each_text(v_fields) AS f (field_name, field_type) LOOP
        v_value := p_payload ->> v_name;
        IF v_value IS NULL THEN
            CONTINUE WHEN v_type LIKE '%?';
            RETURN format('the field %s is missing', v_name);
        END IF;
        IF NOT (CASE rtrim(v_type, '?')
            WHEN 'uuid' THEN v_value ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
            WHEN 'integer' THEN jsonb_typeof(p_payload -> v_name) = 'number' AND v_value ~ '^[0-9]{1,9}$'
            WHEN 'time' THEN is_time(v_value)
            ELSE jsonb_typeof(p_payload -> v_name) = 'string' AND length(v_value) BETWEEN 1 AND 1000
        END) THEN
            RETURN format('the field %s is not of type %s', v_name, v_type);
        END IF;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.notification_problem(text, jsonb) IS 'What is wrong with an intent; null when nothing is.';

CREATE FUNCTION backend.turn_reminder_due(p_turn_reminder text, p_turn_at timestamptz, p_time_zone text) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY INVOKER
RETURN CASE p_turn_reminder
    WHEN 'each' THEN p_turn_at + interval '1 hour'
    -- By that zone's clock, days that begin at eight.
    WHEN 'daily' THEN (date_trunc('day', (p_turn_at AT TIME ZONE p_time_zone) - interval '8 hours') + interval '1 day 8 hours')
                      AT TIME ZONE p_time_zone
END;
COMMENT ON FUNCTION backend.turn_reminder_due(text, timestamptz, text) IS
    'When somebody is reminded of a turn: an hour later (each), at the next eight in the morning of their zone (daily), or never (off: null).';

CREATE FUNCTION backend.turn_reminder_problem(p_user_id uuid, p_game_id uuid, p_turn_at timestamptz) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN CASE
    WHEN NOT EXISTS (SELECT FROM backend.memberships AS m JOIN backend.games AS g USING (game_id)
                      WHERE m.game_id = p_game_id AND m.user_id = p_user_id AND m.status = 'active' AND g.status IN ('running', 'paused'))
        THEN 'they do not play it any more'
    WHEN EXISTS (SELECT FROM backend.device_sessions AS s
                  WHERE s.user_id = p_user_id -- Who is there is noted once a minute.
                    AND greatest(s.last_seen_at, s.created_at) >= p_turn_at - interval '1 minute')
        THEN 'they have been seen since'
END;
COMMENT ON FUNCTION backend.turn_reminder_problem(uuid, uuid, timestamptz) IS
    'Why somebody need not be reminded of a turn; null when they are to be.';

CREATE FUNCTION backend.notification_problem_now(p_notification backend.notifications, p_channel text) RETURNS text
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (
    SELECT CASE
        WHEN EXISTS (SELECT FROM backend.notification_opt_outs AS o
                      WHERE o.user_id = p_notification.user_id AND o.kind = p_notification.kind AND o.channel = p_channel)
            OR (k.has_reminder AND a.turn_reminder = 'off') THEN 'it is not wanted'
        WHEN k.has_reminder THEN backend.turn_reminder_problem(
            p_notification.user_id, (p_notification.payload ->> 'game_id')::uuid, p_notification.created_at)
    END
      FROM backend.notification_kinds AS k LEFT JOIN backend.accounts AS a ON a.user_id = p_notification.user_id
     WHERE k.kind = p_notification.kind
);
COMMENT ON FUNCTION backend.notification_problem_now(backend.notifications, text) IS
    'Why somebody is not to be told by mail any more of what waited: they do not want it, or need no reminder; null when they are.';

CREATE FUNCTION backend.notification_values(p_payload jsonb) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN p_payload || jsonb_build_object(
    'game_name', coalesce((SELECT g.game_name FROM backend.games AS g WHERE g.game_id = (p_payload ->> 'game_id')::uuid), 'a game that is gone'),
    'expires_at', to_char((p_payload ->> 'expires_at')::timestamptz AT TIME ZONE 'UTC', 'FMDD FMMonth YYYY, HH24:MI "UTC"'));
COMMENT ON FUNCTION backend.notification_values(jsonb) IS
    'What the mail of a notification can speak of: its payload, with times as people write them, and the game''s name. No person''s: it would be left in other people''s mail when they go.';

CREATE FUNCTION backend.notification_route_settle(
    p_route_id uuid, p_status text, p_error text, p_next_attempt_at timestamptz DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_status text;
    v_channel text;
BEGIN
    UPDATE notification_routes AS r
       SET status = CASE WHEN p_status = 'retrying' AND r.attempts + 1 >= setting('notification_max_attempts') THEN 'dead_lettered' ELSE p_status END,
           attempts = r.attempts + 1, last_error = left(p_error, 1000),
           next_attempt_at = coalesce(p_next_attempt_at, backend.now() + retry_after(r.attempts + 1))
     WHERE r.route_id = p_route_id
    RETURNING r.status, r.channel INTO STRICT v_status, v_channel;
    IF v_status = 'dead_lettered' THEN
        INSERT INTO notification_dead_letters (route_id, reason) VALUES (p_route_id, left(coalesce(p_error, 'unknown'), 1000));
    ELSIF v_status = 'delivered' THEN
        PERFORM metric_count('notification_routes_total', jsonb_build_object('channel', v_channel));
    END IF;
END;
$$;
COMMENT ON FUNCTION backend.notification_route_settle(uuid, text, text, timestamptz) IS
    'What came of an attempt to deliver a route that the caller has locked: delivered, skipped, or retrying, which after the last attempt is a dead letter; tried again at a given moment or after the usual wait.';

CREATE FUNCTION backend.notification_mail(
    p_template_id text, p_route_ids uuid[], p_address text, p_payload jsonb, p_user_id uuid
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_error text;
    v_next timestamptz;
BEGIN
    IF p_address IS NOT NULL THEN
        -- What one mail fails at must not undo its cause, nor other mails.
        BEGIN
            PERFORM mail_enqueue(p_template_id, p_route_ids[1]::text, ARRAY[p_address], notification_values(p_payload), p_user_id);
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR plpgsql_error THEN
            v_error := SQLSTATE || ' ' || SQLERRM;
            -- Together, so that what is one mail stays one.
            SELECT backend.now() + retry_after(max(r.attempts) + 1) INTO v_next FROM notification_routes AS r WHERE r.route_id = ANY (p_route_ids);
        END;
    END IF;
    PERFORM CASE
                WHEN p_address IS NULL THEN notification_route_settle(r, 'skipped', 'there is no address')
                WHEN v_error IS NULL THEN notification_route_settle(r, 'delivered', NULL)
                ELSE notification_route_settle(r, 'retrying', v_error, v_next)
            END
       FROM unnest(p_route_ids) AS r;
END;
$$;
COMMENT ON FUNCTION backend.notification_mail(text, uuid[], text, jsonb, uuid) IS
    'Makes one mail of routes that the caller has locked, with the first one''s id as its key, and settles them. Nothing that is wrong with template, values or address is raised: the routes are tried again.';

CREATE FUNCTION backend.notification_intent_count(p_kind text, p_outcome text) RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
RETURN backend.metric_count('notification_intents_total', jsonb_build_object('kind', p_kind, 'outcome', p_outcome));
COMMENT ON FUNCTION backend.notification_intent_count(text, text) IS 'Counts an intent: accepted, repeated, malformed.';

CREATE FUNCTION backend.notification_submit(p_kind text, p_idempotency_key text, p_user_id uuid, p_payload jsonb) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_problem text := notification_problem(p_kind, p_payload);
    v_kind notification_kinds%ROWTYPE;
    v_account accounts%ROWTYPE;
    v_opted_out text[];
    v_notification_id uuid;
    v_channel text;
    v_route_id uuid;
BEGIN
    SELECT * INTO v_kind FROM notification_kinds WHERE kind = p_kind;
    SELECT * INTO v_account FROM accounts WHERE user_id = p_user_id;
    IF v_problem IS NULL AND v_kind.is_for_administrators <> (p_user_id IS NULL) THEN
        v_problem := CASE WHEN v_kind.is_for_administrators THEN 'the kind is for administrators' ELSE 'the kind is for a person' END;
    END IF;
    IF v_problem IS NULL AND length(coalesce(p_idempotency_key, '')) NOT BETWEEN 1 AND 200 THEN
        v_problem := 'the key does not have 1 to 200 characters';
    ELSIF v_problem IS NULL AND p_user_id IS NOT NULL AND v_account.user_id IS NULL THEN
        v_problem := 'there is no such person';
    END IF;
    IF v_problem IS NOT NULL THEN
        INSERT INTO notification_malformed_intents (kind, idempotency_key, user_id, payload, reason)
        VALUES (coalesce(p_kind, ''), p_idempotency_key, p_user_id, p_payload, v_problem);
        PERFORM notification_intent_count(coalesce(v_kind.kind, 'unknown'), 'malformed');
        RETURN NULL;
    END IF;
    INSERT INTO notifications (kind, idempotency_key, user_id, payload, request_id, trace_id)
    VALUES (p_kind, p_idempotency_key, p_user_id, p_payload, request_id(), split_part(traceparent(), '-', 2))
    ON CONFLICT ON CONSTRAINT notifications_one_per_kind_key_and_person DO NOTHING
    RETURNING notification_id INTO v_notification_id;
    PERFORM notification_intent_count(p_kind, CASE WHEN v_notification_id IS NULL THEN 'repeated' ELSE 'accepted' END);
    IF v_notification_id IS NULL THEN
        RETURN (SELECT n.notification_id FROM notifications AS n
                 WHERE n.kind = p_kind AND n.idempotency_key = p_idempotency_key AND n.user_id IS NOT DISTINCT FROM p_user_id);
    END IF;
    v_opted_out := ARRAY(SELECT o.channel FROM notification_opt_outs AS o WHERE o.user_id = p_user_id AND o.kind = p_kind);
    FOREACH v_channel IN ARRAY v_kind.channels LOOP
        INSERT INTO notification_routes (notification_id, channel) VALUES (v_notification_id, v_channel) RETURNING route_id INTO v_route_id;
        CASE
            WHEN v_account.deleted_at IS NOT NULL THEN
                PERFORM notification_route_settle(v_route_id, 'skipped', 'the person is gone');
            WHEN v_channel = ANY (v_opted_out) THEN
                PERFORM notification_route_settle(v_route_id, 'skipped', 'it is not wanted');
            WHEN v_channel = 'push' THEN
                PERFORM push_client_event(p_user_id, NULL, p_kind, p_payload, v_route_id, p_idempotency_key);
                PERFORM notification_route_settle(v_route_id, 'delivered', NULL);
            WHEN v_kind.mail_daily_by IS NOT NULL AND EXISTS (
                SELECT FROM notifications AS n JOIN notification_routes AS r USING (notification_id)
                 WHERE n.user_id = p_user_id AND n.kind = p_kind AND n.created_at > backend.now() - interval '1 day'
                   AND n.payload -> v_kind.mail_daily_by = p_payload -> v_kind.mail_daily_by
                   AND r.channel = 'email' AND r.status NOT IN ('skipped', 'cancelled') AND r.route_id <> v_route_id
            ) THEN
                PERFORM notification_route_settle(v_route_id, 'skipped', 'they had such a mail today');
            WHEN v_kind.is_for_administrators THEN
                -- Where they are reached only the worker knows.
                PERFORM job_defer_once('notifications', 'notification_deliver');
            ELSE
                PERFORM notification_mail(p_kind, ARRAY[v_route_id], v_account.email, p_payload, p_user_id);
        END CASE;
    END LOOP;
    IF v_kind.has_reminder AND v_account.turn_reminder <> 'off' AND v_account.deleted_at IS NULL THEN
        INSERT INTO notification_routes (notification_id, channel, is_digest, next_attempt_at)
        VALUES (v_notification_id, 'email', v_account.turn_reminder = 'daily',
                turn_reminder_due(v_account.turn_reminder, backend.now(), v_account.time_zone));
    END IF;
    RETURN v_notification_id;
END;
$$;
COMMENT ON FUNCTION backend.notification_submit(text, text, uuid, jsonb) IS
    'Tells somebody something, in this transaction; the same kind, key and person again is the same notification. What is malformed is kept aside, and null returned.';

CREATE FUNCTION backend.turn_reminders_reschedule(p_user_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_account accounts%ROWTYPE;
    v_route record;
BEGIN
    SELECT * INTO STRICT v_account FROM accounts WHERE user_id = p_user_id;
    FOR v_route IN
        SELECT r.route_id, n.created_at
          FROM notification_routes AS r JOIN notifications AS n USING (notification_id) JOIN notification_kinds AS k USING (kind)
         WHERE n.user_id = p_user_id AND r.channel = 'email' AND r.status IN ('pending', 'retrying') AND k.has_reminder
         ORDER BY r.route_id
           FOR NO KEY UPDATE OF r
    LOOP
        IF v_account.turn_reminder = 'off' THEN
            PERFORM notification_route_settle(v_route.route_id, 'skipped', 'it is not wanted');
        ELSE
            UPDATE notification_routes
               SET is_digest = v_account.turn_reminder = 'daily',
                   next_attempt_at = turn_reminder_due(v_account.turn_reminder, v_route.created_at, v_account.time_zone)
             WHERE route_id = v_route.route_id;
        END IF;
    END LOOP;
END;
$$;
COMMENT ON FUNCTION backend.turn_reminders_reschedule(uuid) IS
    'Puts the reminders that somebody still waits for where their choice and their zone now want them; the account is locked by the caller.';

CREATE FUNCTION backend.notification_preferences_json(p_account backend.accounts) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'channels', (
        SELECT jsonb_object_agg(k.kind, (
                   SELECT jsonb_object_agg(c, NOT EXISTS (
                              SELECT FROM backend.notification_opt_outs AS o
                               WHERE o.user_id = p_account.user_id AND o.kind = k.kind AND o.channel = c))
                     FROM unnest(k.channels) AS c))
          FROM backend.notification_kinds AS k WHERE k.is_optional),
    'turn_reminder', p_account.turn_reminder
);
COMMENT ON FUNCTION backend.notification_preferences_json(backend.accounts) IS 'The preferences object of the contract: every kind that can be chosen.';

CREATE FUNCTION backend.notification_json(p_notification backend.notifications) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'notification_id', p_notification.notification_id,
    'kind', p_notification.kind,
    'idempotency_key', p_notification.idempotency_key,
    'user_id', p_notification.user_id,
    'payload', p_notification.payload,
    'request_id', p_notification.request_id,
    'trace_id', p_notification.trace_id,
    'created_at', backend.ts(p_notification.created_at)
);
COMMENT ON FUNCTION backend.notification_json(backend.notifications) IS 'The notification object of the contract.';

CREATE FUNCTION backend.notification_with_routes_json(p_notification backend.notifications) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN backend.notification_json(p_notification) || jsonb_build_object('routes', (
    SELECT coalesce(jsonb_agg(jsonb_build_object(
               'route_id', r.route_id, 'channel', r.channel, 'status', r.status, 'attempts', r.attempts, 'last_error', r.last_error,
               'next_attempt_at', CASE WHEN r.status IN ('pending', 'retrying') THEN backend.ts(r.next_attempt_at) END,
               'delivery_id', d.delivery_id) ORDER BY r.route_id), '[]')
      FROM backend.notification_routes AS r
      LEFT JOIN backend.mail_deliveries AS d
        ON r.channel = 'email' AND d.template_id = p_notification.kind AND d.idempotency_key = r.route_id::text
     WHERE r.notification_id = p_notification.notification_id));
COMMENT ON FUNCTION backend.notification_with_routes_json(backend.notifications) IS
    'The notification object of the contract with its routes; delivery_id is the mail that a route became, null for one in a digest.';

CREATE VIEW backend.invariants_notifications AS
SELECT 'notification_without_its_routes' AS invariant, n.notification_id AS object_id, n.kind AS details
  FROM backend.notifications AS n JOIN backend.notification_kinds AS k USING (kind)
 WHERE NOT k.channels <@ ARRAY(SELECT r.channel FROM backend.notification_routes AS r WHERE r.notification_id = n.notification_id)
UNION ALL
SELECT 'route_by_a_channel_that_its_kind_has_not', r.route_id, n.kind
  FROM backend.notification_routes AS r JOIN backend.notifications AS n USING (notification_id) JOIN backend.notification_kinds AS k USING (kind)
 WHERE NOT r.channel = ANY (k.channels || CASE WHEN k.has_reminder THEN '{email}' ELSE '{}' END::text[])
UNION ALL
SELECT 'dead_letter_and_route_disagree', r.route_id, r.status
  FROM backend.notification_routes AS r LEFT JOIN backend.notification_dead_letters AS l USING (route_id)
 WHERE (r.status = 'dead_lettered') <> (l.route_id IS NOT NULL)
UNION ALL
SELECT 'opt_out_of_what_is_not_optional', o.user_id, o.kind
  FROM backend.notification_opt_outs AS o JOIN backend.notification_kinds AS k USING (kind)
 WHERE NOT k.is_optional OR NOT o.channel = ANY (k.channels)
UNION ALL
SELECT 'email_kind_without_a_template', NULL, k.kind
  FROM backend.notification_kinds AS k
 WHERE ('email' = ANY (k.channels) OR k.has_reminder) AND NOT EXISTS (SELECT FROM backend.mail_templates AS t WHERE t.template_id = k.kind);
COMMENT ON VIEW backend.invariants_notifications IS 'What must never be seen in notifications.';

COMMIT;
