-- Deploy galaxy-backend:backend/runtime to pg
-- requires: backend/games
-- requires: backend/settings

-- Why: the engine of a game, what is wanted of it and what is seen of it, in columns of their own. Whoever works on it does so
-- under a lease whose number rises with each attempt: what is reported with an older number counts for nothing.

BEGIN;
SET LOCAL ROLE backend_owner;

INSERT INTO backend.state_transitions (machine, action, from_state, to_state, description) VALUES
    ('runtime', 'start', NULL, 'starting', 'An engine is wanted for the first time.'),
    ('runtime', 'start', 'stopped', 'starting', 'An engine is wanted again.'),
    ('runtime', 'start', 'removed', 'starting', 'An engine is wanted again.'),
    ('runtime', 'start', 'running', 'starting', 'It is started anew.'),
    ('runtime', 'start', 'engine_unreachable', 'starting', 'It is started anew.'),
    ('runtime', 'start', 'generation_failed', 'starting', 'It is started anew.'),
    ('runtime', 'start', 'generating', 'starting', 'It is started anew, whatever it is at.'),
    ('runtime', 'observe', 'starting', 'running', 'It answers, and knows its game.'),
    ('runtime', 'observe', 'engine_unreachable', 'running', 'It answers again.'),
    ('runtime', 'observe', 'generation_failed', 'running', 'It answers again.'),
    ('runtime', 'observe', 'stopped', 'running', 'It is there again.'),
    ('runtime', 'generate', 'running', 'generating', 'A turn is being computed.'),
    ('runtime', 'generate', 'engine_unreachable', 'generating', 'A turn is being computed.'),
    ('runtime', 'generate', 'generation_failed', 'generating', 'A turn is being computed.'),
    ('runtime', 'report', 'generating', 'running', 'The turn was computed.'),
    ('runtime', 'report', 'generating', 'engine_unreachable', 'It did not answer.'),
    ('runtime', 'report', 'generating', 'generation_failed', 'It could not compute the turn.'),
    ('runtime', 'report', 'running', 'engine_unreachable', 'It did not answer.'),
    ('runtime', 'report', 'running', 'generation_failed', 'It could not compute the turn.'),
    ('runtime', 'report', 'starting', 'engine_unreachable', 'It did not come up anew.'),
    ('runtime', 'stop', 'starting', 'stopped', 'It did not come up, or is not there.'),
    ('runtime', 'stop', 'running', 'stopped', 'It is not there any more.'),
    ('runtime', 'stop', 'generating', 'stopped', 'It is not there any more.'),
    ('runtime', 'stop', 'engine_unreachable', 'stopped', 'It is not there any more.'),
    ('runtime', 'stop', 'generation_failed', 'stopped', 'It is not there any more.'),
    ('runtime', 'remove', 'starting', 'removed', 'It was taken away.'),
    ('runtime', 'remove', 'running', 'removed', 'It was taken away.'),
    ('runtime', 'remove', 'generating', 'removed', 'It was taken away.'),
    ('runtime', 'remove', 'engine_unreachable', 'removed', 'It was taken away.'),
    ('runtime', 'remove', 'generation_failed', 'removed', 'It was taken away.'),
    ('runtime', 'remove', 'stopped', 'removed', 'It was taken away.');

CREATE TABLE backend.runtime_records (
    game_id uuid PRIMARY KEY REFERENCES backend.games,
    wanted text NOT NULL DEFAULT 'running' CONSTRAINT runtime_records_wanted_is_known CHECK (wanted IN ('running', 'stopped', 'removed')),
    status text NOT NULL DEFAULT 'starting',
    generation integer NOT NULL DEFAULT 1,
    engine_version text NOT NULL REFERENCES backend.engine_versions,
    image_ref text NOT NULL,
    container_id text,
    endpoint text,
    current_turn integer,
    next_turn_at timestamptz,
    skip_next_turn boolean NOT NULL DEFAULT false,
    turn_requested_at timestamptz,
    turn_is_outstanding boolean NOT NULL DEFAULT false,
    start_operation text NOT NULL DEFAULT 'start'
        CONSTRAINT runtime_records_start_operation_is_known CHECK (start_operation IN ('start', 'restart', 'patch')),
    unwell_since timestamptz,
    replaced_at timestamptz,
    lease_number bigint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT backend.now(),
    started_at timestamptz,
    last_observed_at timestamptz,
    finished_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.runtime_records IS 'The engine of a game: what is wanted, what is seen.';
COMMENT ON COLUMN backend.runtime_records.generation IS 'Rises each time that another engine is wanted.';
COMMENT ON COLUMN backend.runtime_records.turn_requested_at IS 'A turn is to be computed, by schedule or by force.';
COMMENT ON COLUMN backend.runtime_records.turn_is_outstanding IS
    'The engine may have been asked for a turn whose answer nobody got: it is not asked again before it was stopped.';
COMMENT ON COLUMN backend.runtime_records.start_operation IS 'Why it is starting.';
COMMENT ON COLUMN backend.runtime_records.unwell_since IS 'It runs and does not answer as it should, since then; null while it is well.';
COMMENT ON COLUMN backend.runtime_records.replaced_at IS 'When it was last replaced because it was unwell, until it is seen well.';
COMMENT ON COLUMN backend.runtime_records.lease_number IS 'The fence: rises with each attempt to do something with the engine.';
COMMENT ON COLUMN backend.runtime_records.finished_at IS 'When its game was over: for a while after that it is kept.';
COMMENT ON COLUMN backend.runtime_records.next_attempt_at IS 'When the sweep defers a job again for what is still to be done.';
CREATE INDEX runtime_records_by_engine_version ON backend.runtime_records (engine_version);
CREATE INDEX runtime_records_due_turns ON backend.runtime_records (next_turn_at) WHERE turn_requested_at IS NULL AND status = 'running';
CREATE INDEX runtime_records_requested_turns ON backend.runtime_records (next_attempt_at) WHERE turn_requested_at IS NOT NULL;
CREATE INDEX runtime_records_unsettled ON backend.runtime_records (next_attempt_at)
    WHERE (wanted = 'running' AND status = 'starting') OR (wanted = 'removed' AND status <> 'removed');
-- Records stay for ever, engines do not: by this the sweep reads those only, which the time in games could not serve.
CREATE INDEX runtime_records_finished ON backend.runtime_records (finished_at) WHERE wanted = 'running' AND finished_at IS NOT NULL;
CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF status ON backend.runtime_records
    FOR EACH ROW EXECUTE FUNCTION backend.tg_state__follow_edges('runtime', 'status');
CREATE TRIGGER touch BEFORE UPDATE ON backend.runtime_records FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.player_mappings (
    game_id uuid NOT NULL REFERENCES backend.games,
    user_id uuid NOT NULL REFERENCES backend.accounts,
    player_id text NOT NULL,
    race_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (game_id, user_id),
    CONSTRAINT player_mappings_one_per_race UNIQUE (game_id, race_name)
);
COMMENT ON TABLE backend.player_mappings IS 'Which player of the engine is which person.';
CREATE INDEX player_mappings_by_user ON backend.player_mappings (user_id);
CREATE TRIGGER touch BEFORE UPDATE ON backend.player_mappings FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.game_turns (
    game_id uuid NOT NULL REFERENCES backend.games,
    turn integer NOT NULL,
    players jsonb NOT NULL,
    lease_number bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (game_id, turn)
);
COMMENT ON TABLE backend.game_turns IS 'Each turn once, with what the engine said of its players.';

CREATE TABLE backend.runtime_operation_log (
    operation_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    operation text NOT NULL CONSTRAINT runtime_operation_log_operation_is_known
        CHECK (operation IN ('pull', 'start', 'init', 'turn', 'stop', 'remove', 'restart', 'patch', 'adopt', 'banish', 'logs')),
    generation integer NOT NULL,
    lease_number bigint NOT NULL,
    started_at timestamptz NOT NULL DEFAULT backend.now(),
    finished_at timestamptz,
    outcome text CONSTRAINT runtime_operation_log_outcome_is_known CHECK (outcome IN ('done', 'failed')),
    error text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.runtime_operation_log IS 'Everything that was done to an engine; without an outcome it goes on, or its worker died.';
CREATE INDEX runtime_operation_log_by_game ON backend.runtime_operation_log (game_id, operation_id);
CREATE INDEX runtime_operation_log_by_age ON backend.runtime_operation_log (started_at);
CREATE TRIGGER touch BEFORE UPDATE ON backend.runtime_operation_log FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE TABLE backend.runtime_health_snapshots (
    snapshot_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    game_id uuid NOT NULL REFERENCES backend.games,
    is_healthy boolean NOT NULL,
    details text,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.runtime_health_snapshots IS 'How an engine answered, where that changed.';
CREATE INDEX runtime_health_snapshots_by_game ON backend.runtime_health_snapshots (game_id, snapshot_id);
-- Why: the newest lines that an engine has written, as a job has fetched them for an administrator.
CREATE TABLE backend.runtime_logs (
    game_id uuid PRIMARY KEY REFERENCES backend.games,
    requested_at timestamptz NOT NULL DEFAULT backend.now(),
    taken_at timestamptz,
    generation integer,
    content text,
    error text,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT runtime_logs_content_is_short CHECK (octet_length(content) <= 262144)
);
COMMENT ON TABLE backend.runtime_logs IS 'The tail of an engine''s log, as it was last asked for; taken_at is before requested_at while the job is still to come.';
CREATE INDEX runtime_logs_waiting ON backend.runtime_logs (requested_at) WHERE taken_at IS NULL OR taken_at < requested_at;
CREATE TRIGGER touch BEFORE UPDATE ON backend.runtime_logs FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.runtime_queue_is_full() RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
RETURN (SELECT count(*) FROM backend.runtime_records AS r
         WHERE r.wanted = 'running' AND r.status = 'starting' AND (r.lease_until IS NULL OR backend.is_over(r.lease_until)))
     + (SELECT count(*) FROM backend.runtime_records AS r
         WHERE r.turn_requested_at IS NOT NULL AND r.skip_next_turn AND r.status <> 'generating')
     + (SELECT count(*) FROM backend.runtime_logs AS l WHERE l.taken_at IS NULL OR l.taken_at < l.requested_at)
    >= backend.setting('runtime_job_queue_size');
COMMENT ON FUNCTION backend.runtime_queue_is_full() IS
    'Whether as many commands to engines wait (starts, turns by force, logs) as may; those that come at the same moment may be as many more.';

-- Retention.
CREATE INDEX runtime_health_snapshots_by_age ON backend.runtime_health_snapshots (created_at);

COMMIT;
