-- Deploy galaxy-backend:backend/queue to pg
-- requires: backend/queue_base

-- Why: the rest of Procrastinate's migrations, to 3.10. A later package's new migrations are a new change.

BEGIN;
SET LOCAL ROLE backend_owner;
SET LOCAL search_path = procrastinate;
\set migration `python3 db/procrastinate_migration.py 02.08.00_01_add_additional_params_to_retry_job.sql d3c9d446a79ff2a9f3030db01772c33a4c4dd3898151598d05f1979ea4e76319`
\i :migration
\set migration `python3 db/procrastinate_migration.py 02.14.01_01_add_indexes_for_fetch_job.sql 66c0fdc9ea24569f14d2b2ebaf9f8309858e66141dd271d9bf61ecf56c362ada`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.00.00_01_pre_cancel_notification.sql e79f3dc19f80de6f6c54aec9deb4548989b68ae38061a55b6ee3144e313c1ecd`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.00.00_50_post_cancel_notification.sql d16fba7d14d5c699ceb81fd67a450422bd4b8337b1934b4eb00aa5438eddfbdf`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.01.00_01_pre_add_heartbeat.sql f07b98da98e470881e629478f85f142b2f28a659f1ab53e0da1dc7fe917834b8`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.01.00_50_post_add_heartbeat.sql 562472e1ccfd262792a57dcd771f918dae87b0dc038e3832172b3f1ccce69dc0`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.02.00_01_pre_batch_defer_jobs.sql 1f8f957339ff8a455bfd27bdbdbda41daca3b19931a032cd2d9356620af93951`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.02.00_50_post_batch_defer_jobs.sql 8fc1d2c94a057eab36cb074f920f8fab17cb23f8ccee708a64ea52804222ac67`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.03.00_01_pre_priority_lock_fetch_job.sql 70731b65ba99a63962fd1adc6e1c9b3bef6a480a091f3d41d32c50b7ddc31441`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.04.00_01_pre_add_retry_failed_job_procedure.sql 6883b7336508620ba856db4a78558158fe15c8e68b2ea05c60b468e73c311255`
\i :migration
\set migration `python3 db/procrastinate_migration.py 03.04.00_50_post_add_retry_failed_job_procedure.sql b7938e0a0885d8d00d3f55647bcf141c3f2acac439070c1287734fcb3d98947b`
\i :migration

SET LOCAL search_path = pg_catalog;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA procrastinate TO backend_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA procrastinate TO backend_worker;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA procrastinate TO backend_worker;

COMMIT;
