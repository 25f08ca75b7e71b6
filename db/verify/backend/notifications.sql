-- Verify galaxy-backend:backend/notifications on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT notification_id, kind, idempotency_key, user_id, payload, request_id, trace_id FROM backend.notifications WHERE false;
SELECT route_id, notification_id, channel, status, attempts, next_attempt_at, last_error FROM backend.notification_routes WHERE false;
SELECT route_id, reason FROM backend.notification_dead_letters WHERE false;
SELECT user_id, kind, channel FROM backend.notification_opt_outs WHERE false;
SELECT malformed_id, kind, idempotency_key, user_id, payload, reason FROM backend.notification_malformed_intents WHERE false;

DO $$
DECLARE
    v_user_id uuid := (backend.account_create('telegram', 'verify', NULL, 'en', 'UTC', NULL)).user_id;
    v_payload jsonb := '{"game_id": "00000000-0000-7000-8000-000000000000", "turn": 1}';
BEGIN
    ASSERT backend.notification_submit('game.turn.ready', 'verify', v_user_id, v_payload)
         = backend.notification_submit('game.turn.ready', 'verify', v_user_id, v_payload), 'one intent made two notifications';
    ASSERT backend.notification_submit('verify.unknown', 'verify', v_user_id, '{}') IS NULL, 'an unknown kind was taken';
    ASSERT (SELECT count(*) = 1 FROM backend.notification_malformed_intents WHERE kind = 'verify.unknown'),
        'a malformed intent was not kept';
    ASSERT NOT EXISTS (SELECT FROM backend.invariants_notifications), 'an invariant of notifications is violated';
    PERFORM 'backend.notification_kinds'::regclass;
    PERFORM 'backend.notification_problem(text, jsonb)'::regprocedure;
    PERFORM 'backend.notification_values(jsonb)'::regprocedure;
    PERFORM 'backend.notification_problem_now(backend.notifications, text)'::regprocedure;
    ASSERT NOT backend.is_time('2026-13-45T99:99:99Z'), 'no moment is taken for one';
    PERFORM 'backend.notification_route_settle(uuid, text, text, timestamptz)'::regprocedure;
    PERFORM 'backend.notification_intent_count(text, text)'::regprocedure;
    PERFORM 'backend.notification_mail(text, uuid[], text, jsonb, uuid)'::regprocedure;
    PERFORM 'backend.turn_reminder_problem(uuid, uuid, timestamptz)'::regprocedure;
    PERFORM 'backend.turn_reminders_reschedule(uuid)'::regprocedure;
    PERFORM 'backend.notification_preferences_json(backend.accounts)'::regprocedure;
    PERFORM 'backend.notification_json(backend.notifications)'::regprocedure;
    PERFORM 'backend.notification_with_routes_json(backend.notifications)'::regprocedure;
    ASSERT backend.turn_reminder_due('daily', '2026-01-01T07:30:00Z', 'Europe/Berlin') = '2026-01-02T07:00:00Z', 'eight in the morning is another time';
END;
$$;

ROLLBACK;
