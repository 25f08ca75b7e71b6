-- Deploy galaxy-backend:backend/audit to pg
-- requires: backend/administrators
-- requires: backend/jobs

-- Why: who did what to what, when, from where. Written in the command's own transaction, and never changed by anybody: not by
-- the owner's functions, nor by hand.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE TABLE backend.audit_log (
    audit_id uuid PRIMARY KEY DEFAULT backend.uuid_v7(),
    admin text NOT NULL,
    action text NOT NULL,
    object_type text NOT NULL,
    object_id text NOT NULL,
    details jsonb,
    source_ip inet,
    request_id text,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.audit_log IS 'Every command of every administrator. Append-only, by trigger.';
-- Each filter of the list, newest first.
CREATE INDEX audit_log_by_admin ON backend.audit_log (admin, audit_id);
CREATE INDEX audit_log_by_action ON backend.audit_log (action, audit_id);
CREATE INDEX audit_log_by_object ON backend.audit_log (object_type, object_id, audit_id);
CREATE INDEX audit_log_by_object_type ON backend.audit_log (object_type, audit_id);
CREATE INDEX audit_log_by_object_id ON backend.audit_log (object_id, audit_id);
CREATE INDEX audit_log_by_time ON backend.audit_log (created_at);

CREATE FUNCTION backend.tg_audit_log__append_only() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END;
$$;
COMMENT ON FUNCTION backend.tg_audit_log__append_only() IS 'Before update, delete or truncate: refuses. 42501.';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON backend.audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION backend.tg_audit_log__append_only();

CREATE FUNCTION backend.audit(p_admin text, p_action text, p_object_type text, p_object_id text, p_details jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO audit_log (admin, action, object_type, object_id, details, source_ip, request_id)
    VALUES (p_admin, p_action, p_object_type, p_object_id, p_details,
            nullif(current_setting('backend.source_ip', true), '')::inet, request_id());
END;
$$;
COMMENT ON FUNCTION backend.audit(text, text, text, text, jsonb) IS
    'Writes down an administrator''s command, in its transaction, with the address that the app saw it come from.';

CREATE FUNCTION backend.audit_json(p_entry backend.audit_log) RETURNS jsonb
LANGUAGE sql STABLE SECURITY INVOKER
RETURN jsonb_build_object(
    'audit_id', p_entry.audit_id,
    'admin', p_entry.admin,
    'action', p_entry.action,
    'object_type', p_entry.object_type,
    'object_id', p_entry.object_id,
    'details', p_entry.details,
    'source_ip', host(p_entry.source_ip),
    'request_id', p_entry.request_id,
    'at', backend.ts(p_entry.created_at)
);
COMMENT ON FUNCTION backend.audit_json(backend.audit_log) IS 'The audit object of the contract.';

COMMIT;
