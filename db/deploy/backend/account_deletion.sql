-- Deploy galaxy-backend:backend/account_deletion to pg
-- requires: backend/lobby_release
-- requires: backend/auth
-- requires: backend/idempotency

-- Why: a person who goes leaves a row without a name, for what others still see of them, and nothing that leads back to them. What
-- happens to each column that holds something of theirs is declared here, area by area; a test holds the declarations against
-- the catalog, so that a new table cannot forget them.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.deletion_rules (
    table_name text NOT NULL,
    column_name text NOT NULL,
    holds text NOT NULL CONSTRAINT deletion_rules_holds_is_known CHECK (holds IN ('person', 'address', 'data')),
    rule text NOT NULL CONSTRAINT deletion_rules_rule_is_known CHECK (rule IN ('keep', 'delete', 'erase', 'hash', 'release')),
    description text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (table_name, column_name),
    CONSTRAINT deletion_rules_rows_are_found_by_person_or_address CHECK (rule <> 'delete' OR holds IN ('person', 'address'))
);
COMMENT ON TABLE backend.deletion_rules IS
    'What the deletion of an account does to each column that leads to a person. delete: account_delete() deletes the rows, by this declaration alone; keep: only the id stays; release: lobby_release() sees to it.';
COMMENT ON COLUMN backend.deletion_rules.holds IS 'person: an account''s id; address: an e-mail address; data: something else of theirs.';
INSERT INTO backend.deletion_rules (table_name, column_name, holds, rule, description) VALUES
    ('accounts', 'user_id', 'person', 'keep', 'What is left of the account.'),
    ('accounts', 'user_name', 'data', 'keep', 'Random, made by us, says nothing of them.'),
    ('accounts', 'email', 'address', 'hash', 'email_hash stays.'),
    ('accounts', 'email_hash', 'data', 'hash', 'SHA-256 of the address.'),
    ('accounts', 'display_name', 'data', 'erase', 'It becomes "deleted".'),
    ('accounts', 'preferred_language', 'data', 'erase', 'It becomes that of somebody new.'),
    ('accounts', 'time_zone', 'data', 'erase', 'It becomes UTC.'),
    ('accounts', 'turn_reminder', 'data', 'erase', 'It becomes off.'),
    ('accounts', 'declared_country', 'data', 'erase', 'It becomes null.'),
    ('identities', 'user_id', 'person', 'delete', 'The ways in are free for a new registration.'),
    ('identities', 'subject', 'data', 'erase', 'It goes with its row.'),
    ('entitlement_records', 'user_id', 'person', 'keep', 'What was granted, for the books.'),
    ('entitlement_snapshots', 'user_id', 'person', 'keep', 'What was granted, for the books.'),
    ('sanction_records', 'user_id', 'person', 'keep', 'What was decided, for ever.'),
    ('sanction_active', 'user_id', 'person', 'keep', 'What was decided, for ever.'),
    ('limit_records', 'user_id', 'person', 'keep', 'What was decided, for ever.'),
    ('limit_active', 'user_id', 'person', 'keep', 'What was decided, for ever.'),
    ('device_sessions', 'user_id', 'person', 'keep', 'Revoked; when somebody signed in is for whoever looks into abuse.'),
    ('device_sessions', 'client_public_key', 'data', 'erase', 'The key of their device; a revoked session needs none.'),
    ('device_sessions', 'token_hash', 'data', 'erase', 'Likewise.'),
    ('auth_challenges', 'email', 'address', 'delete', 'Codes for an address that is nobody''s now.'),
    ('auth_challenges', 'source_hash', 'data', 'erase', 'From which network a code was asked for; it goes with its row.'),
    ('blocked_emails', 'email', 'address', 'keep', 'A block is of the address, whoever has it.'),
    ('mail_deliveries', 'user_id', 'person', 'keep', 'That a mail went out; what was not sent is cancelled, a login code expired.'),
    ('mail_recipients', 'address', 'address', 'erase', 'It becomes one that nobody can have, made of the id.'),
    ('mail_payloads', 'subject', 'data', 'erase', 'Of every mail to them.'),
    ('mail_payloads', 'body_text', 'data', 'erase', 'Of every mail to them.'),
    ('mail_payloads', 'body_html', 'data', 'erase', 'Of every mail to them.'),
    ('mail_attempts', 'error', 'data', 'erase', 'Relays repeat the address in what they answer.'),
    ('mail_dead_letters', 'reason', 'data', 'erase', 'Likewise.'),
    ('notifications', 'user_id', 'person', 'keep', 'Ids of games; what was not delivered is cancelled.'),
    ('notification_opt_outs', 'user_id', 'person', 'delete', 'What they wanted to be told.'),
    ('notification_malformed_intents', 'user_id', 'person', 'keep', 'As it was given, of our own faults.'),
    ('notification_routes', 'last_error', 'data', 'erase', 'It may repeat what was to be said.'),
    ('notification_dead_letters', 'reason', 'data', 'erase', 'Likewise.'),
    ('push_pending', 'user_id', 'person', 'keep', 'Ids, for minutes.'),
    ('push_events', 'user_id', 'person', 'keep', 'Ids, for minutes.'),
    ('games', 'owner_user_id', 'person', 'release', 'Cancelled before the start; after it the game goes on, and administrators run it.'),
    ('memberships', 'user_id', 'person', 'release', 'The seat is given up; what was played stays.'),
    ('invites', 'inviter_user_id', 'person', 'release', 'Those that are open are revoked.'),
    ('invites', 'invited_user_id', 'person', 'release', 'Those that are open are revoked.'),
    ('invites', 'redeemed_by_user_id', 'person', 'keep', 'How a seat was taken.'),
    ('applications', 'applicant_user_id', 'person', 'release', 'Those that are open are withdrawn.'),
    ('invite_attempts', 'user_id', 'person', 'delete', 'A count that nobody needs.'),
    ('race_names', 'user_id', 'person', 'release', 'All are let go, those too that were registered.'),
    ('idempotency_keys', 'caller', 'data', 'erase', 'The answers to their commands go, and those about them to the gateway''s.'),
    ('diplomail_messages', 'sender_user_id', 'person', 'keep', 'What they wrote stays its readers''; it is signed with a race name, not with theirs.'),
    ('diplomail_recipients', 'user_id', 'person', 'delete', 'What they were sent, read or not; what waits for a translation they do not get.'),
    ('player_mappings', 'user_id', 'person', 'keep', 'Which race the engine knows.');

CREATE FUNCTION backend.ways_in_lock(p_user_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM identity_lock(i.provider, i.subject)
       FROM (SELECT o.provider, o.subject FROM identities AS o WHERE o.user_id = p_user_id ORDER BY o.provider, o.subject) AS i;
END;
$$;
COMMENT ON FUNCTION backend.ways_in_lock(uuid) IS
    'Nobody signs in, or asks for a code, by a person''s ways in until the end of the transaction. Taken before any row.';

CREATE FUNCTION backend.code_mails(p_addresses text[]) RETURNS uuid[]
LANGUAGE sql STABLE SECURITY INVOKER
RETURN ARRAY(
    SELECT d.delivery_id
      FROM backend.mail_recipients AS r JOIN backend.mail_deliveries AS d USING (delivery_id) JOIN backend.mail_templates AS t USING (template_id)
     WHERE r.address = ANY (p_addresses) AND t.is_secret);
COMMENT ON FUNCTION backend.code_mails(text[]) IS 'The login codes that were mailed to addresses, whether or not there was an account.';

CREATE FUNCTION backend.mail_forget(p_user_id uuid, p_delivery_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM FROM mail_deliveries AS d WHERE d.delivery_id = ANY (p_delivery_ids) ORDER BY d.delivery_id FOR NO KEY UPDATE;
    UPDATE mail_deliveries AS d
       SET status = CASE WHEN t.is_secret THEN 'expired' ELSE 'cancelled' END, lease_until = NULL
      FROM mail_templates AS t
     WHERE t.template_id = d.template_id AND d.delivery_id = ANY (p_delivery_ids) AND d.status IN ('pending', 'retrying');
    UPDATE mail_payloads AS p
       SET subject = 'erased', body_text = NULL, body_html = NULL, erased_at = coalesce(p.erased_at, backend.now())
      FROM mail_deliveries AS d
     WHERE d.delivery_id = ANY (p_delivery_ids) AND p.payload_id = d.payload_id;
    UPDATE mail_recipients SET address = p_user_id || '@deleted.invalid' WHERE delivery_id = ANY (p_delivery_ids);
    UPDATE mail_attempts SET error = NULL WHERE delivery_id = ANY (p_delivery_ids) AND error IS NOT NULL;
    UPDATE mail_dead_letters SET reason = 'erased' WHERE delivery_id = ANY (p_delivery_ids);
END;
$$;
COMMENT ON FUNCTION backend.mail_forget(uuid, uuid[]) IS
    'Stops mails to a person that have not gone out, and erases what they said and where they went.';

CREATE FUNCTION backend.account_delete(p_user_id uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, procrastinate, pg_catalog, pg_temp
AS $$
DECLARE
    v_addresses text[] := ARRAY(
        SELECT a.email FROM accounts AS a WHERE a.user_id = p_user_id AND a.email IS NOT NULL
        UNION
        SELECT i.subject FROM identities AS i WHERE i.user_id = p_user_id AND i.provider = 'email');
    v_rule deletion_rules%ROWTYPE;
BEGIN
    PERFORM lobby_release(p_user_id, 'deleted');
    -- Routes before mails, as whoever makes mails of routes does: what is in their hands now is seen below.
    UPDATE notification_routes AS r SET status = 'cancelled', last_error = NULL
      FROM notifications AS n
     WHERE n.notification_id = r.notification_id AND n.user_id = p_user_id AND r.status IN ('pending', 'retrying');
    UPDATE notification_routes AS r SET last_error = NULL
      FROM notifications AS n
     WHERE n.notification_id = r.notification_id AND n.user_id = p_user_id AND r.last_error IS NOT NULL;
    UPDATE notification_dead_letters AS l SET reason = 'erased'
      FROM notification_routes AS r JOIN notifications AS n USING (notification_id)
     WHERE r.route_id = l.route_id AND n.user_id = p_user_id;
    -- Also those to an address, before there was an account.
    PERFORM mail_forget(p_user_id, ARRAY(SELECT d.delivery_id FROM mail_deliveries AS d WHERE d.user_id = p_user_id) || code_mails(v_addresses));
    -- In the order in which retention takes messages.
    PERFORM FROM diplomail_recipients AS r WHERE r.user_id = p_user_id ORDER BY r.message_id FOR NO KEY UPDATE;
    FOR v_rule IN SELECT * FROM deletion_rules AS r WHERE r.rule = 'delete' ORDER BY r.table_name, r.column_name LOOP
        IF v_rule.holds = 'person' THEN
            EXECUTE format('DELETE FROM backend.%I WHERE %I = $1', v_rule.table_name, v_rule.column_name) USING p_user_id;
        ELSE
            EXECUTE format('DELETE FROM backend.%I WHERE %I = ANY ($1)', v_rule.table_name, v_rule.column_name) USING v_addresses;
        END IF;
    END LOOP;
    DELETE FROM idempotency_keys
     WHERE caller = p_user_id::text OR (caller = 'internal' AND strpos(concat(location, body), p_user_id::text) > 0);
    UPDATE accounts
       SET deleted_at = backend.now(), email = NULL, email_hash = sha256(convert_to(email, 'UTF8')), display_name = 'deleted',
           preferred_language = 'en', time_zone = 'UTC', turn_reminder = 'off', declared_country = NULL
     WHERE user_id = p_user_id;
    PERFORM session_revoke_all(p_user_id, 'account_deleted');
    UPDATE device_sessions SET client_public_key = NULL, token_hash = NULL WHERE user_id = p_user_id;
END;
$$;
COMMENT ON FUNCTION backend.account_delete(uuid) IS
    'Deletes an account, with all that deletion_rules says; the person''s ways in and row are locked by the caller, who found them not deleted.';

COMMIT;
