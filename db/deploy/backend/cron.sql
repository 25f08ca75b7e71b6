-- Deploy galaxy-backend:backend/cron to pg
-- requires: backend/errors

-- Why: a game's turns come by a schedule of five fields in UTC, as cron reads them: minute, hour, day of the month, month, day
-- of the week, each a list of *, numbers, ranges and steps; months and weekdays also by their English names; Sunday is 0 or 7.
-- Where both days are given, either will do.

BEGIN;
SET LOCAL ROLE backend_owner;

CREATE FUNCTION backend.cron_field(p_field text, p_min integer, p_max integer, p_names text[] DEFAULT '{}') RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_item text;
    v_parts text[];
    v_from integer;
    v_to integer;
    v_step integer;
    v_values integer[] := ARRAY[]::integer[];
BEGIN
    FOREACH v_item IN ARRAY string_to_array(lower(p_field), ',') LOOP
        FOR i IN 1..cardinality(p_names) LOOP
            v_item := regexp_replace(v_item, '(^|-)' || p_names[i] || '(?=$|-|/)', '\1' || (i - 1 + p_min), 'g');
        END LOOP;
        v_parts := regexp_match(v_item, '^(?:(\*)|([0-9]{1,2})(?:-([0-9]{1,2}))?)(?:/([0-9]{1,2}))?$');
        IF v_parts IS NULL THEN
            RETURN NULL;
        END IF;
        v_from := CASE WHEN v_parts[1] = '*' THEN p_min ELSE v_parts[2]::integer END;
        -- A single number with a step goes on to the end, as cron has it.
        v_to := CASE
            WHEN v_parts[1] = '*' THEN p_max
            WHEN v_parts[3] IS NOT NULL THEN v_parts[3]::integer
            WHEN v_parts[4] IS NOT NULL THEN p_max
            ELSE v_from
        END;
        v_step := coalesce(v_parts[4]::integer, 1);
        IF v_from < p_min OR v_to > p_max OR v_from > v_to OR v_step < 1 THEN
            RETURN NULL;
        END IF;
        v_values := v_values || ARRAY(SELECT generate_series(v_from, v_to, v_step));
    END LOOP;
    RETURN ARRAY(SELECT DISTINCT v FROM unnest(v_values) AS v ORDER BY v);
END;
$$;
COMMENT ON FUNCTION backend.cron_field(text, integer, integer, text[]) IS
    'The numbers that a field of a schedule means, in order; null for one that is malformed. p_names: names of the numbers from p_min on.';

CREATE FUNCTION backend.cron_next(p_schedule text, p_after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
DECLARE
    v_fields text[] := regexp_split_to_array(btrim(p_schedule), '\s+');
    v_minutes integer[];
    v_hours integer[];
    v_month_days integer[];
    v_months integer[];
    v_week_days integer[];
    v_after timestamp := date_trunc('minute', p_after AT TIME ZONE 'UTC');
    v_day date := v_after::date;
    v_is_either boolean;
    v_is_month_day boolean;
    v_is_week_day boolean;
    v_found timestamp;
BEGIN
    IF cardinality(v_fields) <> 5 OR length(p_schedule) > 200 THEN
        RETURN NULL;
    END IF;
    v_minutes := cron_field(v_fields[1], 0, 59);
    v_hours := cron_field(v_fields[2], 0, 23);
    v_month_days := cron_field(v_fields[3], 1, 31);
    v_months := cron_field(v_fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
    v_week_days := cron_field(v_fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}');
    IF v_minutes IS NULL OR v_hours IS NULL OR v_month_days IS NULL OR v_months IS NULL OR v_week_days IS NULL THEN
        RETURN NULL;
    END IF;
    IF 7 = ANY (v_week_days) THEN
        v_week_days := v_week_days || 0;
    END IF;
    v_is_either := v_fields[3] NOT LIKE '*%' AND v_fields[5] NOT LIKE '*%';
    -- Forty years and a day: a 29 February that is a certain day of the week can be as far away as that.
    FOR i IN 0..14610 LOOP
        v_is_month_day := extract(day FROM v_day)::integer = ANY (v_month_days);
        v_is_week_day := extract(dow FROM v_day)::integer = ANY (v_week_days);
        IF extract(month FROM v_day)::integer = ANY (v_months)
           AND ((v_is_month_day AND v_is_week_day) OR (v_is_either AND (v_is_month_day OR v_is_week_day)))
        THEN
            SELECT min(t.at) INTO v_found
              FROM (SELECT v_day + make_interval(hours => h, mins => m) AS at
                      FROM unnest(v_hours) AS h, unnest(v_minutes) AS m) AS t
             WHERE t.at > v_after;
            IF v_found IS NOT NULL THEN
                RETURN v_found AT TIME ZONE 'UTC';
            END IF;
        END IF;
        v_day := v_day + 1;
    END LOOP;
    RETURN NULL;
END;
$$;
COMMENT ON FUNCTION backend.cron_next(text, timestamptz) IS
    'The first moment of a schedule after another moment; null for a schedule that is malformed or never comes.';

COMMIT;
