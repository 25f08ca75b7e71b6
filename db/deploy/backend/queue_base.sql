-- Deploy galaxy-backend:backend/queue_base to pg
-- requires: backend/schemas

-- Why: the job queue's tables are Procrastinate's own, as its migrations leave them; each file is checked against the hash that
-- was read here. schema.sql of the package is not used: it would already contain what a later change adds, and break fresh
-- deploys. Two changes, because Postgres lets nobody use an enum's new value before the transaction that added it has committed.

BEGIN;
SET LOCAL ROLE backend_owner;
SET LOCAL search_path = procrastinate;
\set migration `python3 db/procrastinate_migration.py 00.00.00_01_initial.sql 6d7ba94c51af22f6cf437e01774a2de4d98666886f9c0597bfb24deb86546dfa`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.05.00_01_drop_started_at_column.sql 8c36c1cbb9c2c2c4e29996d0839cfc0e674638dd59da73d22d5883a66c94a6d8`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.05.00_02_drop_started_at_column.sql 62fab33b3996ef2bfab09a0502318c51cae1a186db58a2d803e1c341fcf6a149`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.05.00_03_drop_procrastinate_version_table.sql e43a1e3cec48cf071140edce6828107b43ca6b7cfa8ae9dcd527a6fa99e40236`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.06.00_01_fix_procrastinate_fetch_job.sql 4dac8738ebebc78b890b56db631018a3cd74089fc3a0e6004aaf7c6252779169`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.07.01_01_fix_trigger_status_events_insert.sql e40c589ce32d0b3a0cc5d6b667da42f0fef066e51e6907fad196b1d8b83c9149`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.08.01_01_add_queueing_lock_column.sql c8896579a44c9f258309f96c76b8c9415e1766dedfc4a8ca9158094438e6085b`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.10.00_01_close_fetch_job_race_condition.sql 0be9e8dfa820f435482a2066fc68e6f44f92d7ca9a90226443c4be448de0fc32`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.10.00_02_add_defer_job_function.sql f49362754442068426b66872cd7f15bb1a9610909a5e8539edbccce79a78c8e8`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.11.00_03_add_procrastinate_periodic_defers.sql 9cf251e931e905ce31d4e5b8bebea220c035b255e3ec0046ba7659d2a6ee9cb6`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.12.00_01_add_foreign_key_index.sql d4b44b60e1c79891a52145a9804d1f942cdfb6c8717d575ef2b3fec26b70224f`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.14.00_01_add_locks_to_periodic_defer.sql 7150bc363db295dd7f7114ceab63ae7d52dfece3b91b1735546e64f7b22c1638`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.15.02_01_fix_procrastinate_defer_periodic_job.sql cee1ba5828128ff062cd73a7505e5f5a827aea9d09131049cdde8ed32af767f1`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.16.00_01_add_finish_job_and_retry_job_functions.sql adc143a05e5d53d4e32513cfe389a6201cc47a8169723f7135429109d8b41264`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.17.00_01_add_trigger_on_job_deletion.sql a5c49223abe0566e2952013d16089ffc3b29c1238642341632a3e245f22f0b92`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.17.00_02_delete_finished_jobs.sql d777d6c03fab2e590f6ac5144ac7401762bb2ba1c2b83504392638427e556242`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.17.00_03_add_checks_to_finish_job.sql 989c1d0a968ebc0f7a33bebfcab41c0e41fcbf4629d6ed67e40d32d0a5b31201`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.17.00_04_add_checks_to_retry_job.sql 588340629e015ef0fef21d702a64b3031fe449d9676474850ca4425dc63fcd87`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.18.01_01_fix_finish_job_compat_issue.sql 046d1a97cbf2d9fbfbb0fb3a1dd6dc271f0267e55843566acc1cee86eab41288`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.19.00_01_add_index_on_procrastinate_jobs.sql 3a424d244f9af480f581b493c5d93fea60b03540e369797294518f128c9e6360`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.22.00_01_add_kwargs_to_defer_periodic_job.sql ba2e550f46f912b420aec63b46462ede8291b66552369df567dc0b36360eae3f`
\i :migration
\set migration `python3 db/procrastinate_migration.py 00.23.00_01_null_locks_excluded.sql 24c853edc002f63535d87bbc7bba5093f4e26bc7844b504c0786242aea698c16`
\i :migration
\set migration `python3 db/procrastinate_migration.py 01.00.00_01_remove_old_finish_job_function.sql 2665cd1782a2ecb93a7f95e7bf4867335886d31f26acc15fc97be7c8957ae323`
\i :migration
\set migration `python3 db/procrastinate_migration.py 01.01.01_01_job_id_bigint.sql 223e3f20475bc76efe3e00509f9ba2d8610e27a77da72a5fcb7dbc4bec357a8b`
\i :migration
\set migration `python3 db/procrastinate_migration.py 02.00.03_01_add_job_priority.sql 34aa498b770d1f6a1bdda291a45866dae7cc2cb509f19d8e0445788b91191142`
\i :migration
\set migration `python3 db/procrastinate_migration.py 02.05.00_01_add_periodic_job_priority.sql 997a8b9d61c5c93752521f7dd52c87799752fe2e0396b3f636c413b23c778280`
\i :migration
\set migration `python3 db/procrastinate_migration.py 02.06.00_01_add_cancel_states.sql 28e8be115842d81d29a0e818338dc319a24be044b469e30df6f535977a25a498`
\i :migration

COMMIT;
