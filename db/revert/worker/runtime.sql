-- Revert galaxy-backend:worker/runtime from pg

BEGIN;
SET LOCAL ROLE backend_owner;

DROP FUNCTION worker.runtime_operations_purge(integer);
DROP FUNCTION worker.runtime_health_purge(integer);
DROP FUNCTION worker.finished_engines_unwant(integer);
DROP FUNCTION worker.runtime_logs_store(uuid, text, text);
DROP FUNCTION worker.runtime_logs_defer(integer);
DROP FUNCTION worker.runtime_lease_renew(uuid, bigint, integer);
DROP FUNCTION worker.runtime_was_started(uuid, integer);
DROP FUNCTION worker.runtime_unwell(uuid, integer, text, text, double precision);
DROP FUNCTION worker.runtime_observed(uuid, integer, text, text);
DROP FUNCTION worker.runtime_moved(uuid, bigint, text, text);
DROP FUNCTION worker.runtime_is_wanted(uuid, integer);
DROP FUNCTION worker.runtimes_list(uuid);
DROP FUNCTION worker.banishes_defer(integer);
DROP FUNCTION worker.banish_report(uuid, bigint, text[], text);
DROP FUNCTION worker.banish_claim(uuid, integer);
DROP FUNCTION worker.runtime_removed(uuid, bigint);
DROP FUNCTION worker.runtime_remove_claim(uuid, integer);
DROP FUNCTION worker.runtimes_unsettled_defer(integer);
DROP FUNCTION worker.turn_failed(uuid, bigint, text, text, boolean, boolean);
DROP FUNCTION worker.turn_report(uuid, bigint, integer, boolean, jsonb);
DROP FUNCTION worker.turn_claim(uuid, integer);
DROP FUNCTION worker.turns_defer(integer);
DROP FUNCTION worker.runtime_start_failed(uuid, bigint, text, text);
DROP FUNCTION worker.runtime_started(uuid, bigint, text, text, integer, jsonb);
DROP FUNCTION worker.runtime_start_claim(uuid, integer);

COMMIT;
