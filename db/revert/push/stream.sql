-- Revert galaxy-backend:push/stream from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION push.streamer_beat();
DROP FUNCTION push.subscribers_newest(text[]);
DROP FUNCTION push.subscriber_release(text, uuid);
DROP FUNCTION push.subscriber_claim(text, uuid, uuid);
DROP FUNCTION push.cursor_resume(text);
DROP FUNCTION push.events_read(bigint, integer);
DROP FUNCTION push.events_sequence(integer);
DROP FUNCTION push.sequencer_sleep();
DROP FUNCTION push.sequencer_wake();

COMMIT;
