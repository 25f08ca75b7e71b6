-- Revert galaxy-backend:backend/notifications from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP VIEW backend.invariants_notifications;
DROP FUNCTION backend.notification_with_routes_json(backend.notifications);
DROP FUNCTION backend.notification_json(backend.notifications);
DROP FUNCTION backend.notification_preferences_json(backend.accounts);
DROP FUNCTION backend.turn_reminders_reschedule(uuid);
DROP FUNCTION backend.notification_submit(text, text, uuid, jsonb);
DROP FUNCTION backend.notification_intent_count(text, text);
DROP FUNCTION backend.notification_mail(text, uuid[], text, jsonb, uuid);
DROP FUNCTION backend.notification_route_settle(uuid, text, text, timestamptz);
DROP FUNCTION backend.notification_values(jsonb);
DROP FUNCTION backend.notification_problem_now(backend.notifications, text);
DROP FUNCTION backend.turn_reminder_problem(uuid, uuid, timestamptz);
DROP FUNCTION backend.turn_reminder_due(text, timestamptz, text);
DROP FUNCTION backend.notification_problem(text, jsonb);
DROP FUNCTION backend.is_time(text);
DROP TABLE backend.notification_malformed_intents;
DROP TABLE backend.notification_opt_outs;
DROP TABLE backend.notification_dead_letters;
DROP TABLE backend.notification_routes;
DROP TABLE backend.notifications;
DROP TABLE backend.notification_kinds;
DELETE FROM backend.state_transitions WHERE machine = 'notification_route';

COMMIT;
