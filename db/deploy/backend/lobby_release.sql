-- Deploy galaxy-backend:backend/lobby_release to pg
-- requires: backend/invite_rules
-- requires: backend/application_rules

-- Why: an account that is closed, by a block for good or by deletion, lets go of what others wait for: seats, applications, invites,
-- race names, games that nobody else can start.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.lobby_release(p_user_id uuid, p_reason text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_game_ids uuid[];
    v_game games%ROWTYPE;
    v_invite invites%ROWTYPE;
    v_membership memberships%ROWTYPE;
    v_is_before_start boolean;
BEGIN
    IF p_reason IS NULL OR p_reason NOT IN ('blocked', 'deleted') THEN
        RAISE EXCEPTION 'a lobby is released because its account is blocked or deleted, not %', p_reason USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- With the account held, nothing of theirs is added: whoever takes a seat, makes a game or invites holds it as well.
    v_game_ids := ARRAY(
        SELECT g.game_id FROM games AS g WHERE g.owner_user_id = p_user_id AND g.status NOT IN ('finished', 'cancelled')
        UNION
        SELECT m.game_id FROM memberships AS m WHERE m.user_id = p_user_id AND m.status = 'active'
        UNION
        SELECT i.game_id FROM invites AS i WHERE i.invited_user_id = p_user_id AND i.status = 'created'
        UNION
        SELECT i.game_id FROM invites AS i WHERE i.inviter_user_id = p_user_id AND i.status = 'created'
        UNION
        SELECT a.game_id FROM applications AS a WHERE a.applicant_user_id = p_user_id AND a.status = 'submitted');
    -- The games in the order of their ids, then the names in their order: nobody who does likewise waits in a circle.
    PERFORM FROM games AS g WHERE g.game_id = ANY (v_game_ids) ORDER BY g.game_id FOR NO KEY UPDATE;
    PERFORM race_name_lock(n.canonical)
       FROM (SELECT r.canonical FROM race_names AS r WHERE r.user_id = p_user_id AND r.tier <> 'released'
             UNION
             SELECT m.race_name_canonical FROM memberships AS m JOIN games AS g USING (game_id)
              WHERE g.owner_user_id = p_user_id AND m.status = 'active'
                AND g.status IN ('draft', 'enrollment_open', 'ready_to_start', 'start_failed')
              ORDER BY 1) AS n;
    FOR v_game IN SELECT * FROM games AS g WHERE g.game_id = ANY (v_game_ids) ORDER BY g.game_id LOOP
        v_is_before_start := v_game.status IN ('draft', 'enrollment_open', 'ready_to_start', 'start_failed');
        -- The person first: of what happens to their games, the others are told.
        SELECT * INTO v_membership FROM memberships WHERE game_id = v_game.game_id AND user_id = p_user_id AND status = 'active';
        IF FOUND AND v_game.status NOT IN ('finished', 'cancelled') THEN
            PERFORM membership_end(v_game, v_membership, CASE WHEN v_is_before_start OR p_reason = 'deleted' THEN 'removed' ELSE 'blocked' END, 'job');
        END IF;
        IF v_is_before_start AND v_game.owner_user_id = p_user_id THEN
            PERFORM game_transition(v_game, 'cancel', 'job', NULL, 'owner_' || p_reason);
        END IF;
        UPDATE applications SET status = 'withdrawn', decided_at = backend.now()
         WHERE game_id = v_game.game_id AND applicant_user_id = p_user_id AND status = 'submitted';
        FOR v_invite IN
            UPDATE invites SET status = 'revoked'
             WHERE game_id = v_game.game_id AND status = 'created' AND p_user_id IN (inviter_user_id, invited_user_id)
            RETURNING *
        LOOP
            IF v_invite.invited_user_id IS DISTINCT FROM p_user_id AND v_invite.invited_user_id IS NOT NULL THEN
                PERFORM notification_submit('lobby.invite.revoked', 'revoked:' || v_invite.invite_id, v_invite.invited_user_id,
                                            jsonb_build_object('game_id', v_game.game_id));
            END IF;
        END LOOP;
    END LOOP;
    UPDATE race_names SET tier = 'released', released_at = backend.now()
     WHERE user_id = p_user_id AND tier <> 'released' AND (p_reason = 'deleted' OR tier <> 'registered');
END;
$$;
COMMENT ON FUNCTION backend.lobby_release(uuid, text) IS
    'Takes a person out of the lobby because their account is blocked or deleted: applications, invites, seats, race names, games of theirs that have not started. The account is locked by the caller. 22023 for another reason.';

CREATE VIEW backend.invariants_lobby_release AS
WITH closed AS (
    SELECT a.user_id, a.user_name, a.deleted_at IS NOT NULL AS is_deleted FROM backend.accounts AS a
     WHERE a.deleted_at IS NOT NULL OR a.permanent_block
)
SELECT 'seat_of_a_closed_account' AS invariant, m.membership_id AS object_id, c.user_name AS details
  FROM closed AS c JOIN backend.memberships AS m USING (user_id) JOIN backend.games AS g USING (game_id)
 WHERE m.status = 'active' AND g.status NOT IN ('finished', 'cancelled')
UNION ALL
SELECT 'open_invite_of_a_closed_account', i.invite_id, c.user_name
  FROM closed AS c JOIN backend.invites AS i ON c.user_id IN (i.inviter_user_id, i.invited_user_id)
 WHERE i.status = 'created'
UNION ALL
SELECT 'open_application_of_a_closed_account', o.application_id, c.user_name
  FROM closed AS c JOIN backend.applications AS o ON o.applicant_user_id = c.user_id
 WHERE o.status = 'submitted'
UNION ALL
SELECT 'race_name_of_a_closed_account', r.race_name_id, c.user_name
  FROM closed AS c JOIN backend.race_names AS r USING (user_id)
 WHERE r.tier <> 'released' AND (c.is_deleted OR r.tier <> 'registered')
UNION ALL
SELECT 'game_that_its_owner_cannot_start', g.game_id, c.user_name
  FROM closed AS c JOIN backend.games AS g ON g.owner_user_id = c.user_id
 WHERE g.status IN ('draft', 'enrollment_open', 'ready_to_start');
COMMENT ON VIEW backend.invariants_lobby_release IS 'What must never be seen of accounts that are closed.';

COMMIT;
