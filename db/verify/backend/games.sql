-- Verify galaxy-backend:backend/games on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT game_id, game_name, name_search, description, visibility, status, status_reason, owner_user_id, min_players, max_players, enrollment_ends_at,
       turn_schedule, target_engine_version, started_at, finished_at FROM backend.games WHERE false;
SELECT game_id, action, from_status, to_status, actor_type, actor_id, reason FROM backend.game_history WHERE false;
SELECT membership_id, game_id, user_id, race_name, race_name_canonical, status, joined_at, ended_at, planets, population, initial_planets,
       initial_population, max_planets, max_population, ended_by, banish_wanted_at, banished_at FROM backend.memberships WHERE false;
SELECT invite_id, game_id, inviter_user_id, invited_user_id, code_hash, status, expires_at, redeemed_by_user_id FROM backend.invites WHERE false;
SELECT application_id, game_id, applicant_user_id, race_name, status, decided_at FROM backend.applications WHERE false;
SELECT user_id, failures, expires_at FROM backend.invite_attempts WHERE false;

DO $$
BEGIN
    ASSERT (SELECT count(*) = 23 FROM backend.state_transitions WHERE machine = 'game'), 'edges of the game machine are missing';
    ASSERT (SELECT count(*) = 4 FROM pg_trigger
             WHERE tgname = 'follow_edges' AND tgrelid IN ('backend.games'::regclass, 'backend.memberships'::regclass, 'backend.invites'::regclass,
                                                          'backend.applications'::regclass)),
        'a state can be left by hand';
    PERFORM 'backend.tg_games__fold_name()'::regprocedure, 'backend.tg_memberships__note_end()'::regprocedure;
END;
$$;

ROLLBACK;
