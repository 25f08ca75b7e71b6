-- Deploy galaxy-backend:backend/settings to pg
-- requires: backend/clock

-- Why: numbers of rules come from the environment of the program that calls, as settings of its connection. A program that was
-- broken into could set them too, so a table holds the default and the bounds, and what is outside is clamped.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.settings (
    setting_name text PRIMARY KEY CONSTRAINT settings_name_is_lowercase CHECK (setting_name ~ '^[a-z][a-z0-9_]*$'),
    default_value numeric NOT NULL,
    min_value numeric NOT NULL,
    max_value numeric NOT NULL,
    unit text NOT NULL CONSTRAINT settings_unit_is_known CHECK (unit IN ('seconds', 'count', 'bytes')),
    description text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    CONSTRAINT settings_default_is_within_bounds CHECK (default_value BETWEEN min_value AND max_value)
);
COMMENT ON TABLE backend.settings IS
    'Numbers of rules: a connection may set backend.<setting_name>; what it sets is clamped to the bounds here.';

INSERT INTO backend.settings (setting_name, default_value, min_value, max_value, unit, description) VALUES
    ('challenge_ttl', 600, 30, 3600, 'seconds', 'A login code can be confirmed for this long.'),
    ('challenge_max_attempts', 5, 1, 10, 'count', 'So many codes are compared with one challenge.'),
    ('challenge_throttle_window', 60, 0, 3600, 'seconds', 'Live challenges of an address, for one network, are counted over this long.'),
    ('challenge_throttle_max', 3, 1, 20, 'count', 'From so many on, the newest live challenge of that network is used again and no mail is sent.'),
    ('code_mails_per_network', 30, 1, 1000, 'count', 'So many codes a day are mailed to an address for one network that asks.'),
    ('code_mails_per_address', 100, 1, 10000, 'count', 'So many codes a day are mailed to an address, then one each code_mail_interval.'),
    ('code_mail_interval', 900, 1, 86400, 'seconds', 'An address that has had its code mails of the day gets one each so long.'),
    ('code_mails_per_service', 10000, 1, 10000000, 'count', 'So many codes a day are mailed to people with an account, and as many to others.'),
    ('code_mails_per_quiet_network', 5, 1, 1000, 'count', 'A network with fewer code mails that day is quiet, and served also when the service has had its own.'),
    ('wrong_codes_per_network', 30, 1, 1000, 'count', 'So many wrong codes a day for an address are compared for one network.'),
    ('wrong_codes_per_address', 100, 1, 10000, 'count', 'After so many wrong codes in a row, a network may try one each wrong_code_interval.'),
    ('wrong_code_interval', 900, 1, 86400, 'seconds', 'An address with too many wrong codes in a row has one compared each so long, for each network.'),
    ('wrong_codes_per_service', 10000, 1, 1000000, 'count', 'After so many wrong codes a day, only quiet networks may try.'),
    ('wrong_codes_per_quiet_network', 5, 1, 1000, 'count', 'A network with fewer wrong codes that day is quiet.'),
    ('admin_attempts', 10, 1, 1000, 'count', 'After so many wrong passwords for a name, an address is refused.'),
    ('admin_attempts_per_address', 30, 1, 1000000, 'count', 'After so many wrong passwords for whatever names, an address has none compared.'),
    ('admin_attempts_window', 900, 1, 86400, 'seconds', 'Wrong passwords of administrators are counted over this long.'),
    ('username_max_retries', 10, 1, 100, 'count', 'Tries to find a user_name that is free.'),
    ('mail_max_attempts', 8, 1, 100, 'count', 'Tries to deliver a mail before it is a dead letter.'),
    ('dead_letter_notices', 20, 1, 100000, 'count', 'So many dead letters of mail an hour are told to the administrators one by one.'),
    ('mail_retention', 2592000, 86400, 315360000, 'seconds', 'Mail that is done with is kept this long, to be looked up.'),
    ('notification_retention', 2592000, 86400, 315360000, 'seconds', 'Notifications that are done with are kept this long.'),
    ('dead_letter_retention', 7776000, 86400, 315360000, 'seconds', 'What was given up, mail or notification, is kept this long.'),
    ('freshness_window', 300, 1, 86400, 'seconds', 'Push events are kept, and can be resumed from, this long.'),
    ('notification_max_attempts', 8, 1, 100, 'count', 'Tries to deliver a notification before it is a dead letter.'),
    ('invite_default_ttl', 604800, 60, 31536000, 'seconds', 'An invite that names no end is good for this long.'),
    ('invite_attempts', 20, 1, 1000, 'count', 'After so many invites that were not there, a person is refused.'),
    ('invite_attempts_window', 3600, 1, 86400, 'seconds', 'Invites that were not there are counted over this long.'),
    ('enrollment_grace', 86400, 0, 31536000, 'seconds', 'A game with too few members is cancelled so long after the end of enrolment.'),
    ('pending_registration_ttl', 2592000, 60, 31536000, 'seconds', 'A race name that was earned can be registered for this long.'),
    ('diplomail_max_body_bytes', 4096, 1, 32768, 'bytes', 'The longest body of a diplomatic message, in UTF-8.'),
    ('diplomail_max_subject_bytes', 256, 1, 8192, 'bytes', 'The longest subject of a diplomatic message, in UTF-8.'),
    ('diplomail_translator', 0, 0, 1, 'count', 'Whether there is a translator; without one nobody waits for it.'),
    ('diplomail_translator_max_attempts', 5, 1, 100, 'count', 'Tries to translate a message before its readers get the original.'),
    ('diplomail_retention', 31536000, 86400, 315360000, 'seconds', 'Diplomatic mail is kept this long after it was written and its game has ended.'),
    ('finished_engine_retention', 2592000, 3600, 315360000, 'seconds', 'The engine of a game that is finished runs on this long, so that its reports can be read.'),
    ('engine_call_timeout', 60, 1, 3600, 'seconds', 'A call of an engine takes at most this long.'),
    ('runtime_job_queue_size', 64, 1, 100000, 'count', 'More waiting runtime commands than this are refused.');

CREATE FUNCTION backend.setting(p_name text) RETURNS numeric
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_setting settings%ROWTYPE;
    v_given text := current_setting('backend.' || p_name, true);
BEGIN
    SELECT * INTO STRICT v_setting FROM settings WHERE setting_name = p_name;
    IF v_given IS NULL OR v_given !~ '^[0-9]{1,15}(\.[0-9]{1,6})?$' THEN
        RETURN v_setting.default_value;
    END IF;
    RETURN least(greatest(v_given::numeric, v_setting.min_value), v_setting.max_value);
END;
$$;
COMMENT ON FUNCTION backend.setting(text) IS
    'What the connection set, clamped to the bounds of backend.settings, else the default. NO_DATA_FOUND for a name that is not there.';

CREATE FUNCTION backend.setting_interval(p_name text) RETURNS interval
LANGUAGE sql STABLE SECURITY INVOKER
RETURN make_interval(secs => backend.setting(p_name)::double precision);
COMMENT ON FUNCTION backend.setting_interval(text) IS 'A setting of unit seconds, as an interval.';

COMMIT;
