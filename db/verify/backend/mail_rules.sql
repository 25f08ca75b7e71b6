-- Verify galaxy-backend:backend/mail_rules on pg

BEGIN;
SET LOCAL ROLE backend_owner;

DO $$
DECLARE
    v_delivery backend.mail_deliveries;
BEGIN
    v_delivery.delivery_id := backend.mail_enqueue('game.started', 'verify', ARRAY['a@example.org'], '{"game_name": "G"}');
    PERFORM backend.mail_give_up(v_delivery.delivery_id, 'verify');
    ASSERT EXISTS (SELECT FROM backend.notifications WHERE kind = 'mail.dead_lettered' AND payload ->> 'delivery_id' = v_delivery.delivery_id::text),
        'administrators are not told of a dead letter';
    v_delivery := backend.mail_resend(v_delivery.delivery_id);
    ASSERT backend.mail_delivery_json(v_delivery) ->> 'status' = 'pending', 'a dead letter is not sent again';
END;
$$;

ROLLBACK;
