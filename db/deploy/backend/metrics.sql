-- Deploy galaxy-backend:backend/metrics to pg
-- requires: backend/clock

-- Why: what only the database sees, such as how many intents there were, is counted there. A row that everybody counts up would
-- make all writers wait for each other, so each notes a change with its cause, and a job adds them up now and then.

BEGIN;
SET LOCAL ROLE backend_owner;

-- Not logged: a crash of the server may cost a few seconds of counting, and nothing else.
CREATE UNLOGGED TABLE backend.metric_changes (
    change_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    metric text NOT NULL,
    labels jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now()
);
COMMENT ON TABLE backend.metric_changes IS 'What was counted, each by one, and is not added up yet.';

CREATE TABLE backend.metric_totals (
    metric text NOT NULL,
    labels jsonb NOT NULL,
    total bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT backend.now(),
    updated_at timestamptz NOT NULL DEFAULT backend.now(),
    PRIMARY KEY (metric, labels)
);
COMMENT ON TABLE backend.metric_totals IS 'Counters since the schema was deployed; labels are of small, closed sets.';
CREATE TRIGGER touch BEFORE UPDATE ON backend.metric_totals FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();

CREATE FUNCTION backend.metric_count(p_metric text, p_labels jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO metric_changes (metric, labels) VALUES (p_metric, p_labels);
END;
$$;
COMMENT ON FUNCTION backend.metric_count(text, jsonb) IS 'Counts one more, in this transaction.';

CREATE FUNCTION backend.metrics_add_up(p_limit integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_count integer;
BEGIN
    WITH gone AS (
        DELETE FROM metric_changes AS c
         WHERE c.change_id = ANY (ARRAY(SELECT o.change_id FROM metric_changes AS o ORDER BY o.change_id LIMIT p_limit FOR UPDATE SKIP LOCKED))
        RETURNING c.metric, c.labels
    ), added AS (
        INSERT INTO metric_totals AS t (metric, labels, total)
        -- In one order, for who does so at the same time.
        SELECT g.metric, g.labels, count(*) FROM gone AS g GROUP BY g.metric, g.labels ORDER BY g.metric, g.labels
        ON CONFLICT (metric, labels) DO UPDATE SET total = t.total + excluded.total
    )
    SELECT count(*)::integer INTO v_count FROM gone;
    RETURN v_count;
END;
$$;
COMMENT ON FUNCTION backend.metrics_add_up(integer) IS 'Adds at most so many changes to the totals; returns how many.';

COMMIT;
