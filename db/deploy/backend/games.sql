-- Deploy galaxy-backend:backend/games to pg
-- requires: backend/race_names
-- requires: backend/engine_versions
-- requires: backend/cron
-- requires: backend/states

-- Why: a match, who sits in it, who asked for a seat and who was asked to take one. The machines are rows; who may take an edge is written on it.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, actors, description) VALUES
    ('game', 'create', NULL, 'draft', '{owner,admin}', 'A private game has an owner, a public one is made by an administrator.'),
    ('game', 'open-enrollment', 'draft', 'enrollment_open', '{owner,admin}', 'People may take seats.'),
    ('game', 'ready-to-start', 'enrollment_open', 'ready_to_start', '{owner,admin,sweeper}', 'Enough have a seat; enrolment is closed.'),
    ('game', 'start', 'ready_to_start', 'starting', '{owner,admin}', 'A job starts the engine.'),
    ('game', 'runtime-started', 'starting', 'running', '{job}', 'The engine runs and knows the races.'),
    ('game', 'runtime-failed', 'starting', 'start_failed', '{job}', 'The engine could not be started.'),
    ('game', 'retry-start', 'start_failed', 'starting', '{owner,admin}', 'A job tries once more.'),
    ('game', 'pause', 'running', 'paused', '{owner,admin}', 'No scheduled turns.'),
    ('game', 'engine-unreachable', 'running', 'paused', '{job}', 'The engine does not answer.'),
    ('game', 'generation-failed', 'running', 'paused', '{job}', 'The engine could not compute a turn.'),
    ('game', 'container-gone', 'running', 'paused', '{job}', 'The engine is not there any more.'),
    ('game', 'resume', 'paused', 'running', '{owner,admin}', 'The engine is well.'),
    ('game', 'finish', 'running', 'finished', '{job}', 'The engine says so.'),
    ('game', 'finish', 'paused', 'finished', '{job}', 'The engine says so.'),
    ('game', 'cancel', 'draft', 'cancelled', '{owner,admin,job}', 'It will not be played.'),
    ('game', 'cancel', 'enrollment_open', 'cancelled', '{owner,admin,sweeper,job}', 'It will not be played.'),
    ('game', 'cancel', 'ready_to_start', 'cancelled', '{owner,admin,job}', 'It will not be played.'),
    ('game', 'cancel', 'start_failed', 'cancelled', '{owner,admin,job}', 'It will not be played.'),
    ('game', 'force-start', 'ready_to_start', 'starting', '{admin}', 'A job starts the engine.'),
    ('game', 'force-start', 'enrollment_open', 'starting', '{admin}', 'Enrolment is closed and a job starts the engine.'),
    ('game', 'force-stop', 'starting', 'cancelled', '{admin}', 'The engine is removed.'),
    ('game', 'force-stop', 'running', 'cancelled', '{admin}', 'The engine is removed.'),
    ('game', 'force-stop', 'paused', 'cancelled', '{admin}', 'The engine is removed.'),
    ('membership', 'join', NULL, 'active', '{applicant,invitee,owner}', 'A seat is taken, with an invite, by an approval, or by who makes the game.'),
    ('membership', 'remove', 'active', 'removed', '{owner,admin,member,job}', 'The seat is given up, or taken away.'),
    ('membership', 'block', 'active', 'blocked', '{owner,admin,job}', 'The seat is taken away for good.'),
    ('membership', 'rejoin', 'removed', 'active', '{applicant,invitee}', 'A seat is taken again, while enrolment is open.'),
    ('application', 'submit', NULL, 'submitted', '{applicant}', 'Somebody asks for a seat in a public game.'),
    ('application', 'approve', 'submitted', 'approved', '{owner,admin}', 'They have it.'),
    ('application', 'reject', 'submitted', 'rejected', '{owner,admin,job,sweeper}', 'They do not get it, or enrolment was closed before.'),
    ('application', 'withdraw', 'submitted', 'withdrawn', '{applicant,job}', 'They do not want it any more, or their account was closed.'),
    ('invite', 'create', NULL, 'created', '{owner,admin}', 'For a person, or for whoever has the code.'),
    ('invite', 'redeem', 'created', 'redeemed', '{invitee}', 'A seat was taken with it.'),
    ('invite', 'decline', 'created', 'declined', '{invitee}', 'The invitee does not want it.'),
    ('invite', 'revoke', 'created', 'revoked', '{owner,admin,job,sweeper}', 'It was taken back, or enrolment was closed.'),
    ('invite', 'expire', 'created', 'expired', '{owner,admin,sweeper}', 'Its time is over.');

CREATE TABLE backend.games (
    game_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_name text NOT NULL CONSTRAINT games_name_has_1_to_64_characters CHECK (length(game_name) BETWEEN 1 AND 64),
    name_search text NOT NULL,
    description text NOT NULL DEFAULT '' CONSTRAINT games_description_has_at_most_2000_characters CHECK (length(description) <= 2000),
    visibility text NOT NULL CONSTRAINT games_visibility_is_known CHECK (visibility IN ('private', 'public')),
    status text NOT NULL DEFAULT 'draft',
    status_reason text,
    owner_user_id uuid REFERENCES backend.accounts,
    min_players integer NOT NULL CONSTRAINT games_min_players_is_2_or_more CHECK (min_players >= 2),
    max_players integer NOT NULL CONSTRAINT games_max_players_is_at_most_64 CHECK (max_players <= 64),
    enrollment_ends_at timestamptz NOT NULL,
    turn_schedule text NOT NULL,
    target_engine_version text NOT NULL REFERENCES backend.engine_versions,
    started_at timestamptz,
    finished_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT games_name_is_clean CHECK ((game_name = backend.display_name_clean(game_name)) IS TRUE),
    CONSTRAINT games_private_has_an_owner CHECK (visibility = 'public' OR owner_user_id IS NOT NULL),
    CONSTRAINT games_min_players_not_above_max CHECK (min_players <= max_players)
);
COMMENT ON TABLE backend.games IS 'A match. Its engine is in runtime_records. A public one may have an owner as well, who runs it beside the administrators.';
CREATE INDEX games_by_owner ON backend.games (owner_user_id, game_id) WHERE owner_user_id IS NOT NULL;
CREATE INDEX games_by_engine_version ON backend.games (target_engine_version);
-- Lists: each status by itself, newest first; what a search or an owner's filter asks for is in the index.
CREATE INDEX games_by_visibility_and_status ON backend.games (visibility, status, game_id) INCLUDE (name_search, owner_user_id);
-- The sweeper and the turns look at what is alive.
CREATE INDEX games_alive ON backend.games (status, enrollment_ends_at) WHERE status NOT IN ('finished', 'cancelled');
CREATE FUNCTION backend.tg_games__fold_name() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    NEW.name_search := text_fold(normalize(NEW.game_name, NFC));
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION backend.tg_games__fold_name() IS 'Before insert or update of a game''s name: stores it with its case folded, to be searched.';
CREATE TRIGGER fold_name BEFORE INSERT OR UPDATE OF game_name, name_search ON backend.games
    FOR EACH ROW EXECUTE FUNCTION backend.tg_games__fold_name();
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.games
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('game', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.games FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.game_history (
    history_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    action text NOT NULL,
    from_status text,
    to_status text NOT NULL,
    actor_type text NOT NULL CONSTRAINT game_history_actor_type_is_known CHECK (actor_type IN ('user', 'admin', 'job', 'sweeper')),
    actor_id text,
    reason text,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.game_history IS 'Every transition of every game.';
CREATE INDEX game_history_by_game ON backend.game_history (game_id, history_id);

CREATE TABLE backend.memberships (
    membership_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    user_id uuid NOT NULL REFERENCES backend.accounts,
    race_name text NOT NULL,
    race_name_canonical text NOT NULL,
    status text NOT NULL DEFAULT 'active',
    joined_at timestamptz NOT NULL DEFAULT backend.now(),
    ended_at timestamptz,
    ended_id uuid,
    planets integer,
    population numeric,
    initial_planets integer,
    initial_population numeric,
    max_planets integer,
    max_population numeric,
    ended_by text CONSTRAINT memberships_ended_by_is_known CHECK (ended_by IN ('member', 'owner', 'admin', 'job')),
    banish_wanted_at timestamptz,
    banished_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT memberships_banished_was_wanted CHECK (banished_at IS NULL OR banish_wanted_at IS NOT NULL),
    CONSTRAINT memberships_active_was_ended_by_nobody CHECK (status <> 'active' OR ended_by IS NULL),
    CONSTRAINT memberships_one_per_person_and_game UNIQUE (game_id, user_id),
    CONSTRAINT memberships_ended_says_when CHECK ((status = 'active') = (ended_at IS NULL))
);
COMMENT ON TABLE backend.memberships IS 'A person''s seat in a game, and how their race fares: as it began, now, and at its best.';
COMMENT ON COLUMN backend.memberships.ended_id IS
    'An id of the moment of the end. Whether it was before an invite or a start is told by their ids: times are those when transactions began.';
COMMENT ON COLUMN backend.memberships.ended_by IS 'Who ended it: the member, those who run the game, or a job, when the account was closed.';
COMMENT ON COLUMN backend.memberships.banish_wanted_at IS 'The race is to be taken out of play by the engine; banished_at says that it was.';
CREATE UNIQUE INDEX memberships_one_race_name_per_game ON backend.memberships (game_id, race_name_canonical) WHERE status = 'active';
CREATE INDEX memberships_by_user ON backend.memberships (user_id, game_id);
-- What is still to be told to engines.
CREATE INDEX memberships_to_banish ON backend.memberships (game_id) WHERE banish_wanted_at IS NOT NULL AND banished_at IS NULL;
-- Whether a name is in use.
CREATE INDEX memberships_by_race_name ON backend.memberships (race_name_canonical) WHERE status = 'active';
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.memberships
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('membership', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.memberships FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.tg_memberships__note_end() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    NEW.ended_id := CASE WHEN NEW.status <> 'active' THEN coalesce(NEW.ended_id, uuid_v7()) END;
    RETURN NEW;
END;
$$;
COMMENT ON FUNCTION backend.tg_memberships__note_end() IS 'Before insert or update of a seat''s state: notes where its end stands among other events.';
CREATE TRIGGER note_end BEFORE INSERT OR UPDATE OF status ON backend.memberships
    FOR EACH ROW EXECUTE FUNCTION backend.tg_memberships__note_end();

CREATE TABLE backend.invites (
    invite_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    inviter_user_id uuid REFERENCES backend.accounts,
    invited_user_id uuid REFERENCES backend.accounts,
    code_hash bytea CONSTRAINT invites_code_hash_has_32_bytes CHECK (length(code_hash) = 32),
    status text NOT NULL DEFAULT 'created',
    expires_at timestamptz NOT NULL,
    redeemed_by_user_id uuid REFERENCES backend.accounts,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT invites_code_is_unique UNIQUE (code_hash),
    CONSTRAINT invites_for_a_person_or_by_code CHECK ((invited_user_id IS NULL) = (code_hash IS NOT NULL)),
    CONSTRAINT invites_redeemed_says_by_whom CHECK ((status = 'redeemed') = (redeemed_by_user_id IS NOT NULL))
);
COMMENT ON TABLE backend.invites IS 'An offer of a seat; inviter_user_id is null when an administrator made it. The code is not kept, only its SHA-256.';
CREATE INDEX invites_by_game ON backend.invites (game_id, invite_id);
CREATE INDEX invites_by_inviter ON backend.invites (inviter_user_id);
CREATE INDEX invites_by_invited ON backend.invites (invited_user_id, invite_id);
CREATE INDEX invites_by_redeemer ON backend.invites (redeemed_by_user_id);
CREATE UNIQUE INDEX invites_one_live_per_person_and_game ON backend.invites (game_id, invited_user_id) WHERE status = 'created';
CREATE INDEX invites_by_expiry ON backend.invites (expires_at) WHERE status = 'created';
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.invites
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('invite', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.invites FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.applications (
    application_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    applicant_user_id uuid NOT NULL REFERENCES backend.accounts,
    race_name text NOT NULL,
    status text NOT NULL DEFAULT 'submitted',
    decided_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT applications_decided_says_when CHECK ((status = 'submitted') = (decided_at IS NULL))
);
COMMENT ON TABLE backend.applications IS 'Somebody asks for a seat in a public game, under a race name that is theirs only with the seat.';
CREATE INDEX applications_by_game ON backend.applications (game_id, application_id);
CREATE INDEX applications_by_applicant ON backend.applications (applicant_user_id, application_id);
CREATE UNIQUE INDEX applications_one_live_per_person_and_game ON backend.applications (game_id, applicant_user_id) WHERE status = 'submitted';
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.applications
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('application', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.applications FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

-- Codes of 128 bits are not found by trying; who tries is slowed down all the same.
CREATE TABLE backend.invite_attempts (
    user_id uuid PRIMARY KEY REFERENCES backend.accounts,
    failures integer NOT NULL CONSTRAINT invite_attempts_failures_are_positive CHECK (failures > 0),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.invite_attempts IS 'Invites that a person asked for and that are not there; what has expired counts for nothing.';
-- Retention.
CREATE INDEX invite_attempts_by_expiry ON backend.invite_attempts (expires_at);
CREATE TRIGGER touch BEFORE UPDATE ON backend.invite_attempts FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

COMMIT;
