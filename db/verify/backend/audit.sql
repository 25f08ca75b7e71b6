-- Verify galaxy-backend:backend/audit on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT audit_id, admin, action, object_type, object_id, details, source_ip, request_id, created_at FROM backend.audit_log WHERE false;

DO $$
BEGIN
    PERFORM backend.audit('verify', 'verify', 'verify', 'verify', NULL);
    BEGIN
        DELETE FROM backend.audit_log WHERE admin = 'verify';
        ASSERT false, 'the audit log forgets';
    EXCEPTION WHEN insufficient_privilege THEN
        NULL;
    END;
    PERFORM 'backend.audit_json(backend.audit_log)'::regprocedure;
    PERFORM 'backend.tg_audit_log__append_only()'::regprocedure;
END;
$$;

ROLLBACK;
