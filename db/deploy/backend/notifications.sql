-- Deploy galaxy-backend:backend/notifications to pg
-- requires: backend/mail
-- requires: backend/push

-- Why: a request to tell somebody something. The catalogue of kinds is closed and is data; what is asked for becomes a
-- notification with a route per channel, in the transaction of its cause. A malformed intent is kept and harms nobody.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('notification_route', 'open', NULL, 'pending', 'To be delivered.'),
    ('notification_route', 'deliver', 'pending', 'delivered', 'It is a push event, or a mail in the outbox.'),
    ('notification_route', 'deliver', 'retrying', 'delivered', 'It is a push event, or a mail in the outbox.'),
    ('notification_route', 'retry', 'pending', 'retrying', 'It could not be delivered, and is tried again.'),
    ('notification_route', 'give-up', 'pending', 'dead_lettered', 'It could not be delivered so often.'),
    ('notification_route', 'give-up', 'retrying', 'dead_lettered', 'It could not be delivered so often.'),
    ('notification_route', 'skip', 'pending', 'skipped', 'There is no address.'),
    ('notification_route', 'skip', 'retrying', 'skipped', 'There is no address.'),
    ('notification_route', 'cancel', 'pending', 'cancelled', 'The person is gone.'),
    ('notification_route', 'cancel', 'retrying', 'cancelled', 'The person is gone.'),
    ('notification_route', 'retry-dead', 'dead_lettered', 'pending', 'An administrator tries it again.');

CREATE TABLE backend.notification_kinds (
    kind text PRIMARY KEY CONSTRAINT notification_kinds_kind_is_dotted CHECK (kind ~ '^[a-z_]+(\.[a-z_]+)+$'),
    channels text[] NOT NULL CONSTRAINT notification_kinds_channels_are_known CHECK (channels <@ ARRAY['push', 'email']),
    is_for_administrators boolean NOT NULL DEFAULT false,
    fields jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.notification_kinds IS 'The closed catalogue of what people are told.';
COMMENT ON COLUMN backend.notification_kinds.fields IS 'The payload''s fields and their types: uuid, text, integer or time; one with a question mark may be null.';
INSERT INTO backend.notification_kinds (kind, channels, is_for_administrators, fields) VALUES
    ('lobby.invite.received', '{push,email}', false, '{"game_id": "uuid", "inviter_user_id": "uuid?"}'),
    ('lobby.invite.revoked', '{push}', false, '{"game_id": "uuid"}'),
    ('lobby.application.submitted', '{push}', false, '{"game_id": "uuid", "application_id": "uuid"}'),
    ('lobby.application.approved', '{push,email}', false, '{"game_id": "uuid"}'),
    ('lobby.application.rejected', '{push,email}', false, '{"game_id": "uuid"}'),
    ('lobby.membership.removed', '{push,email}', false, '{"game_id": "uuid", "reason": "text"}'),
    ('lobby.membership.blocked', '{push,email}', false, '{"game_id": "uuid"}'),
    ('lobby.race_name.registered', '{push}', false, '{"race_name": "text"}'),
    ('lobby.race_name.expired', '{push}', false, '{"race_name": "text"}'),
    ('lobby.race_name.pending', '{push,email}', false, '{"race_name": "text", "expires_at": "time"}'),
    ('runtime.image_pull_failed', '{email}', true, '{"game_id": "uuid", "image_ref": "text"}'),
    ('runtime.container_start_failed', '{email}', true, '{"game_id": "uuid"}'),
    ('runtime.start_config_invalid', '{email}', true, '{"game_id": "uuid", "reason": "text"}'),
    ('game.turn.ready', '{push}', false, '{"game_id": "uuid", "turn": "integer"}'),
    ('game.paused', '{push}', false, '{"game_id": "uuid", "turn": "integer", "reason": "text"}'),
    ('game.started', '{push,email}', false, '{"game_id": "uuid"}'),
    ('game.finished', '{push,email}', false, '{"game_id": "uuid"}'),
    ('game.generation.failed', '{email}', true, '{"game_id": "uuid", "turn": "integer", "reason": "text"}'),
    ('diplomail.received', '{push}', false, '{"game_id": "uuid", "message_id": "uuid"}'),
    ('mail.dead_lettered', '{email}', true, '{"delivery_id": "uuid", "template_id": "text"}');

-- One template for each kind that goes by mail. game_name is given to all that have a game_id.
INSERT INTO backend.mail_templates (template_id, subject, body_text, body_html)
SELECT t.id, t.subject, t.line || E'\n', E'<!doctype html>\n<html lang="en"><body style="font-family: sans-serif">\n<p>' || t.line || E'</p>\n</body></html>\n'
  FROM (VALUES
    ('lobby.invite.received', 'You are invited to {{game_name}}', 'You are invited to the game {{game_name}}. Sign in to take a seat or to decline.'),
    ('lobby.application.approved', 'You have a seat in {{game_name}}', 'Your application to the game {{game_name}} was approved: you have a seat.'),
    ('lobby.application.rejected', 'Your application to {{game_name}}', 'Your application to the game {{game_name}} was not accepted.'),
    ('lobby.membership.removed', 'You are no longer in {{game_name}}', 'You are no longer a member of the game {{game_name}}. Reason: {{reason}}'),
    ('lobby.membership.blocked', 'You are blocked in {{game_name}}', 'You were blocked in the game {{game_name}} and cannot come back to it.'),
    ('lobby.race_name.pending', 'You have earned the name {{race_name}}', 'You have earned the race name {{race_name}}. Register it before {{expires_at}}, or it becomes free again.'),
    ('runtime.image_pull_failed', 'An engine image cannot be had', 'The image {{image_ref}} for the game {{game_name}} ({{game_id}}) cannot be had.'),
    ('runtime.container_start_failed', 'An engine does not start', 'The engine of the game {{game_name}} ({{game_id}}) does not start.'),
    ('runtime.start_config_invalid', 'A game cannot be started', 'The game {{game_name}} ({{game_id}}) cannot be started: {{reason}}'),
    ('game.started', '{{game_name}} has started', 'The game {{game_name}} has started. Good luck!'),
    ('game.finished', '{{game_name}} is over', 'The game {{game_name}} is over. Sign in to read the last report.'),
    ('game.generation.failed', 'A turn could not be computed', 'Turn {{turn}} of the game {{game_name}} ({{game_id}}) could not be computed: {{reason}}. The game is paused.'),
    ('mail.dead_lettered', 'A mail could not be delivered', 'The mail {{delivery_id}} ({{template_id}}) was given up.')
  ) AS t (id, subject, line);

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

CREATE TABLE backend.notification_routes (
    route_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    notification_id uuid NOT NULL REFERENCES backend.notifications,
    channel text NOT NULL CONSTRAINT notification_routes_channel_is_known CHECK (channel IN ('push', 'email')),
    status text NOT NULL DEFAULT 'pending',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT backend.now(),
    last_error text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT notification_routes_one_per_channel UNIQUE (notification_id, channel)
);
COMMENT ON TABLE backend.notification_routes IS 'A channel by which a notification goes. Its id is the push event''s, and the key of its mail.';
-- What is still to be delivered.
CREATE INDEX notification_routes_due ON backend.notification_routes (next_attempt_at) WHERE status IN ('pending', 'retrying');
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.notification_routes
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('notification_route', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.notification_routes FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.notification_malformed_intents (
    malformed_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    kind text NOT NULL,
    idempotency_key text,
    user_id uuid,
    payload jsonb,
    reason text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.notification_malformed_intents IS 'Intents that no notification could be made of, and why. user_id is as it was given.';

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
            WHEN 'time' THEN v_value ~ '^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$'
            ELSE jsonb_typeof(p_payload -> v_name) = 'string' AND length(v_value) BETWEEN 1 AND 1000
        END) THEN
            RETURN format('the field %s is not of type %s', v_name, v_type);
        END IF;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.notification_problem(text, jsonb) IS 'What is wrong with an intent; null when nothing is.';

CREATE FUNCTION backend.notification_submit(p_kind text, p_idempotency_key text, p_user_id uuid, p_payload jsonb) RETURNS uuid
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_problem text := notification_problem(p_kind, p_payload);
    v_kind notification_kinds%ROWTYPE;
    v_notification_id uuid;
    v_channel text;
    v_route_id uuid;
BEGIN
    SELECT * INTO v_kind FROM notification_kinds WHERE kind = p_kind;
    IF v_problem IS NULL AND v_kind.is_for_administrators <> (p_user_id IS NULL) THEN
        v_problem := CASE WHEN v_kind.is_for_administrators THEN 'the kind is for administrators' ELSE 'the kind is for a person' END;
    END IF;
    IF v_problem IS NULL AND length(coalesce(p_idempotency_key, '')) NOT BETWEEN 1 AND 200 THEN
        v_problem := 'the key does not have 1 to 200 characters';
    ELSIF v_problem IS NULL AND p_user_id IS NOT NULL AND NOT EXISTS (SELECT FROM accounts AS a WHERE a.user_id = p_user_id) THEN
        v_problem := 'there is no such person';
    END IF;
    IF v_problem IS NOT NULL THEN
        INSERT INTO notification_malformed_intents (kind, idempotency_key, user_id, payload, reason)
        VALUES (p_kind, p_idempotency_key, p_user_id, p_payload, v_problem);
        RETURN NULL;
    END IF;
    INSERT INTO notifications (kind, idempotency_key, user_id, payload, request_id, trace_id)
    VALUES (p_kind, p_idempotency_key, p_user_id, p_payload, request_id(), split_part(traceparent(), '-', 2))
    ON CONFLICT ON CONSTRAINT notifications_one_per_kind_key_and_person DO NOTHING
    RETURNING notification_id INTO v_notification_id;
    IF v_notification_id IS NULL THEN
        RETURN (SELECT n.notification_id FROM notifications AS n
                 WHERE n.kind = p_kind AND n.idempotency_key = p_idempotency_key AND n.user_id IS NOT DISTINCT FROM p_user_id);
    END IF;
    FOREACH v_channel IN ARRAY v_kind.channels LOOP
        INSERT INTO notification_routes (notification_id, channel) VALUES (v_notification_id, v_channel) RETURNING route_id INTO v_route_id;
        IF v_channel = 'push' THEN
            PERFORM push_client_event(p_user_id, NULL, p_kind, p_payload, v_route_id, p_idempotency_key);
            UPDATE notification_routes SET status = 'delivered', attempts = 1 WHERE route_id = v_route_id;
        END IF;
    END LOOP;
    -- A mail needs an address, which may be the administrators', and a template: a job sees to it, so that whatever is wrong
    -- with either cannot harm the cause.
    IF 'email' = ANY (v_kind.channels) THEN
        PERFORM job_defer('notifications', 'notification_deliver');
    END IF;
    RETURN v_notification_id;
END;
$$;
COMMENT ON FUNCTION backend.notification_submit(text, text, uuid, jsonb) IS
    'Tells somebody something, in this transaction; the same kind, key and person again is the same notification. What is malformed is kept aside, and null returned.';

CREATE VIEW backend.invariants_notifications AS
SELECT 'notification_without_its_routes' AS invariant, n.notification_id AS object_id, n.kind AS details
  FROM backend.notifications AS n JOIN backend.notification_kinds AS k USING (kind)
 WHERE (SELECT count(*) FROM backend.notification_routes AS r WHERE r.notification_id = n.notification_id) > cardinality(k.channels)
    OR NOT EXISTS (SELECT FROM backend.notification_routes AS r WHERE r.notification_id = n.notification_id)
UNION ALL
SELECT 'email_kind_without_a_template', NULL, k.kind
  FROM backend.notification_kinds AS k
 WHERE 'email' = ANY (k.channels) AND NOT EXISTS (SELECT FROM backend.mail_templates AS t WHERE t.template_id = k.kind);
COMMENT ON VIEW backend.invariants_notifications IS 'What must never be seen in notifications.';

COMMIT;
