-- Deploy galaxy-backend:backend/budgets to pg
-- requires: backend/settings

-- Why: how many codes are mailed and how many wrong ones are compared is counted here, so that it holds for any number of
-- processes and restarts. What an address may get is counted for each network that asks, so that nobody can use it up for
-- somebody else. No row holds an address in clear.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.auth_budgets (
    budget text NOT NULL CONSTRAINT auth_budgets_budget_is_known CHECK (budget IN (
        'code_mails_per_network', 'code_mails_per_address', 'code_mails_per_service', 'code_mails_per_quiet_network',
        'wrong_codes_per_network', 'wrong_codes_per_address', 'wrong_codes_per_service', 'wrong_codes_per_quiet_network')),
    key_hash bytea NOT NULL CONSTRAINT auth_budgets_key_hash_has_32_bytes CHECK (length(key_hash) = 32),
    spent bigint NOT NULL CONSTRAINT auth_budgets_spent_is_positive CHECK (spent > 0),
    refused bigint NOT NULL DEFAULT 0,
    window_started_at timestamptz NOT NULL DEFAULT backend.now(),
    last_at timestamptz NOT NULL DEFAULT backend.now(),
    expires_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (budget, key_hash),
    CONSTRAINT auth_budgets_expire_after_they_start CHECK (expires_at > window_started_at)
);
COMMENT ON TABLE backend.auth_budgets IS 'What was spent of each budget of sign-in codes; a row that is over counts for nothing.';
COMMENT ON COLUMN backend.auth_budgets.budget IS 'The setting that says how much there is.';
COMMENT ON COLUMN backend.auth_budgets.key_hash IS 'SHA-256 of what it is counted for: an address, a network, both, or the service.';
COMMENT ON COLUMN backend.auth_budgets.refused IS 'How often a code was asked for that this budget did not allow.';
COMMENT ON COLUMN backend.auth_budgets.expires_at IS 'A day after the first was spent; of wrong codes in a row, 30 days after the last.';
-- Retention.
CREATE INDEX auth_budgets_by_expiry ON backend.auth_budgets (expires_at);

CREATE TRIGGER touch BEFORE UPDATE ON backend.auth_budgets FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.source_network(p_source_ip inet, p_bits integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_address inet := p_source_ip;
BEGIN
    IF v_address <<= inet '::ffff:0:0/96' THEN
        v_address := inet '0.0.0.0' + (set_masklen(v_address, 128) - inet '::ffff:0:0');
    END IF;
    RETURN coalesce(network(set_masklen(v_address, CASE family(v_address) WHEN 4 THEN p_bits ELSE 64 END))::text, 'unknown');
END;
$$;
COMMENT ON FUNCTION backend.source_network(inet, integer) IS
    'The network that a request comes from: so many bits of an IPv4 address (also one in IPv6 notation), 64 of an IPv6 one; all that are not known are one.';

CREATE FUNCTION backend.budget_key(VARIADIC p_parts text[]) RETURNS bytea
LANGUAGE sql STABLE SECURITY INVOKER
RETURN sha256(convert_to(array_to_json(p_parts)::text, 'UTF8'));
COMMENT ON FUNCTION backend.budget_key(text[]) IS 'What a budget is counted for, as a hash.';

CREATE FUNCTION backend.budget_read(p_budget text, p_key bytea) RETURNS backend.auth_budgets
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_budget auth_budgets%ROWTYPE;
BEGIN
    SELECT * INTO v_budget FROM auth_budgets AS b
     WHERE b.budget = p_budget AND b.key_hash = p_key AND b.expires_at > backend.now();
    v_budget.spent := coalesce(v_budget.spent, 0);
    RETURN v_budget;
END;
$$;
COMMENT ON FUNCTION backend.budget_read(text, bytea) IS 'What was spent of a budget and when; 0 and never where nothing was.';

CREATE FUNCTION backend.budget_spend(p_budget text, p_key bytea, p_most numeric) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_is_run boolean := p_budget = 'wrong_codes_per_address';
    v_expires_at timestamptz := backend.now() + CASE WHEN v_is_run THEN interval '30 days' ELSE interval '1 day' END;
BEGIN
    -- One statement: of those who spend the last of it at once, one does.
    INSERT INTO auth_budgets AS b (budget, key_hash, spent, expires_at) VALUES (p_budget, p_key, 1, v_expires_at)
    ON CONFLICT (budget, key_hash) DO UPDATE
       SET spent = CASE WHEN b.expires_at <= backend.now() THEN 1 ELSE b.spent + 1 END,
           window_started_at = CASE WHEN b.expires_at <= backend.now() THEN backend.now() ELSE b.window_started_at END,
           last_at = greatest(b.last_at, backend.now()),
           expires_at = CASE WHEN v_is_run OR b.expires_at <= backend.now() THEN greatest(b.expires_at, v_expires_at) ELSE b.expires_at END
     WHERE p_most IS NULL OR b.expires_at <= backend.now() OR b.spent < p_most;
    RETURN FOUND;
END;
$$;
COMMENT ON FUNCTION backend.budget_spend(text, bytea, numeric) IS
    'Counts one more, but not more than p_most (null: any number); tells whether it did.';

CREATE FUNCTION backend.code_mail_spend(
    p_email text, p_source_ip inet, p_is_known boolean, p_is_throttled boolean
) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_here bytea := budget_key('address', p_email, source_network(p_source_ip, 24));
    v_address bytea := budget_key('address', p_email);
    v_service bytea := budget_key('service', p_is_known::text);
    v_network bytea := budget_key('network', source_network(p_source_ip, 24));
    v_spent auth_budgets%ROWTYPE := budget_read('code_mails_per_address', v_address);
BEGIN
    -- The caller holds the way in: nobody else spends what is counted for this address.
    IF (budget_read('code_mails_per_network', v_here)).spent >= setting('code_mails_per_network') THEN
        UPDATE auth_budgets SET refused = refused + 1 WHERE budget = 'code_mails_per_network' AND key_hash = v_here;
        RETURN 'network';
    ELSIF p_is_throttled THEN
        RETURN 'throttle';
    ELSIF v_spent.spent >= setting('code_mails_per_address')
          AND v_spent.last_at > backend.now() - setting_interval('code_mail_interval')
    THEN
        UPDATE auth_budgets SET refused = refused + 1 WHERE budget = 'code_mails_per_address' AND key_hash = v_address;
        RETURN 'address';
    END IF;
    -- With an account and without are counted apart: strangers cannot use up what members need. The service's row before the
    -- network's: everybody meets there.
    IF budget_spend('code_mails_per_service', v_service, setting('code_mails_per_service')) THEN
        PERFORM budget_spend('code_mails_per_quiet_network', v_network, NULL);
    ELSIF NOT budget_spend('code_mails_per_quiet_network', v_network, setting('code_mails_per_quiet_network')) THEN
        UPDATE auth_budgets SET refused = refused + 1 WHERE budget = 'code_mails_per_service' AND key_hash = v_service;
        RETURN 'service';
    END IF;
    PERFORM budget_spend('code_mails_per_network', v_here, NULL);
    PERFORM budget_spend('code_mails_per_address', v_address, NULL);
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.code_mail_spend(text, inet, boolean, boolean) IS
    'Counts a code mail to an address asked for from there; null, or else why there is none: network, throttle, address or service. The caller holds identity_lock.';

CREATE FUNCTION backend.code_may_be_tried(p_email text, p_source_ip inet) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_network text := source_network(p_source_ip, 24);
    v_here auth_budgets%ROWTYPE := budget_read('wrong_codes_per_network', budget_key('address', p_email, v_network));
    v_service_most numeric := setting('wrong_codes_per_service');
    v_service bigint := (budget_read('wrong_codes_per_service', budget_key('service'))).spent;
BEGIN
    IF v_here.spent >= setting('wrong_codes_per_network') THEN
        RETURN false;
    ELSIF (budget_read('wrong_codes_per_address', budget_key('address', p_email))).spent >= setting('wrong_codes_per_address')
          AND v_here.last_at > backend.now() - setting_interval('wrong_code_interval')
    THEN
        RETURN false;
    END IF;
    -- Near its end, which is nearer than all who could be comparing at this moment, one after another looks.
    IF v_service BETWEEN v_service_most - 1000 AND v_service_most - 1 THEN
        PERFORM pg_advisory_xact_lock(hashtextextended('wrong_codes_per_service', 7));
        v_service := (budget_read('wrong_codes_per_service', budget_key('service'))).spent;
    END IF;
    IF v_service < v_service_most THEN
        RETURN true;
    END IF;
    -- Locked after the service, always, and only when that is used up.
    PERFORM pg_advisory_xact_lock(hashtextextended('wrong_codes_per_quiet_network:' || v_network, 7));
    RETURN (budget_read('wrong_codes_per_quiet_network', budget_key('network', v_network))).spent
           < setting('wrong_codes_per_quiet_network');
END;
$$;
COMMENT ON FUNCTION backend.code_may_be_tried(text, inet) IS
    'Whether a code for an address that comes from there is compared, by what was wrong before. The caller holds identity_lock.';

CREATE FUNCTION backend.code_was_wrong(p_email text, p_source_ip inet) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_network text := source_network(p_source_ip, 24);
    v_most numeric := setting('wrong_codes_per_service');
BEGIN
    PERFORM budget_spend('wrong_codes_per_network', budget_key('address', p_email, v_network), NULL);
    PERFORM budget_spend('wrong_codes_per_address', budget_key('address', p_email), NULL);
    -- The service's row before the network's: everybody meets there. Once it is used up it is left alone.
    IF (budget_read('wrong_codes_per_service', budget_key('service'))).spent < v_most THEN
        PERFORM budget_spend('wrong_codes_per_service', budget_key('service'), NULL);
    END IF;
    PERFORM budget_spend('wrong_codes_per_quiet_network', budget_key('network', v_network), NULL);
END;
$$;
COMMENT ON FUNCTION backend.code_was_wrong(text, inet) IS 'Counts a wrong code for an address that came from there. The caller holds identity_lock.';

CREATE FUNCTION backend.code_was_right(p_email text) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    DELETE FROM auth_budgets WHERE budget = 'wrong_codes_per_address' AND key_hash = budget_key('address', p_email);
END;
$$;
COMMENT ON FUNCTION backend.code_was_right(text) IS 'Ends a row of wrong codes for an address. The caller holds identity_lock.';

COMMIT;
