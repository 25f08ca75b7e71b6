-- Verify galaxy-backend:backend/race_names on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT race_name_id, canonical, data_version, race_name, user_id, tier, expires_at, registered_at, released_at FROM backend.race_names WHERE false;
SELECT race_name, canonical, data_version FROM backend.reserved_names WHERE false;

DO $$
BEGIN
    ASSERT backend.race_name_canonical('Z0RG') = backend.race_name_canonical('zоrg'), 'two names that look alike are two';
    ASSERT backend.race_name_clean(' Zorg  Verify ') = 'Zorg Verify', 'a name is not cleaned';
    ASSERT (backend.name_character('a')).kind = 'letter' AND (backend.name_character('!')).kind IS NULL, 'characters are not known';
    ASSERT backend.race_name_problem('Adm1n') = 'name_reserved', 'what speaks for the platform is not reserved';
    ASSERT backend.race_name_tidy('  a ') = 'a', 'a name is not trimmed';
    ASSERT (SELECT count(*) = 3 FROM pg_trigger AS t
             WHERE t.tgfoid = 'backend.tg_race_name__store()'::regprocedure AND t.tgrelid IN ('backend.race_names'::regclass, 'backend.reserved_names'::regclass)
                OR t.tgname = 'follow_edges' AND t.tgrelid = 'backend.race_names'::regclass),
        'a canonical form or a tier can be written by hand';
    ASSERT (SELECT count(*) = 8 FROM backend.state_transitions WHERE machine = 'race_name'), 'edges of the race name machine are missing';
    PERFORM 'backend.race_name_lock(text)'::regprocedure;
END;
$$;

ROLLBACK;
