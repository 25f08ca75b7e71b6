-- Test galaxy-backend:backend/cron

BEGIN;
SELECT plan(113);

-- Attributes and privileges.
CREATE TEMPORARY TABLE functions (name text, arguments name[]);
INSERT INTO functions VALUES
    ('cron_field', ARRAY['text', 'integer', 'integer', 'text[]']), ('cron_next', ARRAY['text', 'timestamp with time zone']);
SELECT function_lang_is('backend', name, arguments, 'plpgsql', format('%s() is in PL/pgSQL', name)) FROM functions;
SELECT volatility_is('backend', name, arguments, 'immutable', format('%s() is IMMUTABLE', name)) FROM functions;
SELECT isnt_definer('backend', name, arguments, format('%s() has no rights of its own', name)) FROM functions;
SELECT function_privs_are('backend', name, arguments, r, '{}'::name[], format('%s may not execute %s()', r, name))
  FROM functions, unnest(ARRAY['backend_api', 'backend_worker', 'backend_push']) AS r;

-- A field.
SELECT is(backend.cron_field(f, 0, 5), e::integer[], d)
  FROM (VALUES
    ('*', '{0,1,2,3,4,5}', 'a star is every number'),
    ('3', '{3}', 'a number is itself'),
    ('00', '{0}', 'with zeros before it too'),
    ('1-3', '{1,2,3}', 'a range has both its ends'),
    ('2-2', '{2}', 'also when they are one'),
    ('*/2', '{0,2,4}', 'a step counts from the first'),
    ('*/6', '{0}', 'a step may be longer than the field'),
    ('1-5/2', '{1,3,5}', 'a range may have a step'),
    ('1/2', '{1,3,5}', 'a number with a step goes on to the end'),
    ('5,1-2,1,*/5', '{0,1,2,5}', 'a list is in order, each once')
  ) AS t(f, e, d);
SELECT is(backend.cron_field(f, 0, 7, '{sun,mon,tue,wed,thu,fri,sat}'), e::integer[], d)
  FROM (VALUES
    ('mon', '{1}', 'a name is its number'),
    ('SUN', '{0}', 'in capitals too'),
    ('Mon-Fri', '{1,2,3,4,5}', 'names make ranges'),
    ('mon-5/2', '{1,3,5}', 'with numbers and steps'),
    ('sat,sun', '{0,6}', 'and lists'),
    ('7', '{7}', 'the seventh day is left to whoever reads it')
  ) AS t(f, e, d);
SELECT is(backend.cron_field('jan,dec,sep-oct', 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}'), '{1,9,10,12}', 'names count from the first number');
SELECT is(backend.cron_field(f, 0, 5, '{sun,mon}'), NULL, format('%L is no field', f))
  FROM unnest(ARRAY['6', '0-6', '3-1', '*/0', '1-', '-1', '1--2', 'a', '1,,2', '1,', ',', '*-2', '**', '1.5', '+1', '*/100', '1/', '/2', '1-2-3', '*/2/2', 'sunday',
                    'xsun', 'sun-', 'mon-sun', '*/mon', '1 ', '?', 'L', '1#1', '100', '１']) AS f;

-- The next moment.
SELECT is(backend.cron_next(s, a::timestamptz), e::timestamptz, d)
  FROM (VALUES
    ('* * * * *', '2026-01-01 12:00:00Z', '2026-01-01 12:01:00Z', 'the moment itself is not after itself'),
    ('* * * * *', '2026-01-01 12:00:59.999999Z', '2026-01-01 12:01:00Z', 'a minute begins at its zeroth second'),
    ('*/15 * * * *', '2026-01-01 12:46:00Z', '2026-01-01 13:00:00Z', 'a step begins anew with each hour'),
    ('0 0 * * *', '2026-12-31 00:00:00Z', '2027-01-01 00:00:00Z', 'midnight comes once a day, in the next year too'),
    ('59 23 31 12 *', '2026-12-31 23:58:59Z', '2026-12-31 23:59:00Z', 'the last minute of a year'),
    ('59 23 31 12 *', '2026-12-31 23:59:00Z', '2027-12-31 23:59:00Z', 'and of the next'),
    ('30 4,16 * * *', '2026-01-01 04:30:00Z', '2026-01-01 16:30:00Z', 'hours in a list'),
    ('0 0 31 * *', '2026-01-31 00:00:00Z', '2026-03-31 00:00:00Z', 'a month without such a day is passed over'),
    ('0 0 29 2 *', '2026-01-01 00:00:00Z', '2028-02-29 00:00:00Z', 'a leap day'),
    ('0 0 29 2 *', '2096-02-29 00:00:00Z', '2104-02-29 00:00:00Z', 'may be eight years away'),
    ('0 0 29 2 */7', '2032-02-29 00:00:00Z', '2060-02-29 00:00:00Z', 'one that is a Sunday twenty-eight'),
    ('0 0 1 jan *', '2026-01-01 00:00:00Z', '2027-01-01 00:00:00Z', 'a month by its name'),
    ('0 9 * * mon-fri', '2026-01-02 09:00:00Z', '2026-01-05 09:00:00Z', 'a weekend is passed over'),
    ('0 0 * * 0', '2026-01-01 00:00:00Z', '2026-01-04 00:00:00Z', 'Sunday is 0'),
    ('0 0 * * 7', '2026-01-01 00:00:00Z', '2026-01-04 00:00:00Z', 'and 7'),
    ('0 0 * * sun', '2026-01-01 00:00:00Z', '2026-01-04 00:00:00Z', 'and sun'),
    ('0 0 * * 5-7', '2026-01-03 00:00:00Z', '2026-01-04 00:00:00Z', 'a range may end with it'),
    ('0 0 * * 0-1', '2026-01-03 00:00:00Z', '2026-01-04 00:00:00Z', 'or begin with it'),
    ('30 4 1,15 * fri', '2026-01-01 04:30:00Z', '2026-01-02 04:30:00Z', 'of two kinds of day either will do: a Friday'),
    ('30 4 1,15 * fri', '2026-01-09 04:30:00Z', '2026-01-15 04:30:00Z', 'or the fifteenth'),
    ('0 0 13 * *', '2026-01-01 00:00:00Z', '2026-01-13 00:00:00Z', 'a star beside a day of the month does not count'),
    ('0 0 * 6 mon', '2026-01-01 00:00:00Z', '2026-06-01 00:00:00Z', 'nor beside a day of the week; the month counts'),
    ('0 0 */2 * mon', '2026-01-01 00:00:00Z', '2026-01-05 00:00:00Z', 'what begins with a star and the other are wanted both'),
    ('0 0 */2 * mon', '2026-01-05 00:00:00Z', '2026-01-19 00:00:00Z', 'a Monday on an even day is passed over'),
    (E' 0\t0  * * * ', '2026-01-01 00:00:00Z', '2026-01-02 00:00:00Z', 'fields are parted by white space of any kind'),
    ('0 0 1 1 *', '1999-06-01 00:00:00Z', '2000-01-01 00:00:00Z', 'another century')
  ) AS t(s, a, e, d);
SET LOCAL TimeZone = 'Asia/Kathmandu';
SELECT is(backend.cron_next('0 12 * * *', '2026-01-01 12:00:00Z'), '2026-01-02 12:00:00Z', 'noon is UTC''s wherever the caller is');
SET LOCAL TimeZone = 'America/New_York';
SELECT is(backend.cron_next('30 2 * * *', '2026-03-07 02:30:00Z'), '2026-03-08 02:30:00Z', 'and no hour is missing where clocks change');
RESET TimeZone;

-- Never, and not at all.
SELECT is(backend.cron_next(s, '2026-01-01 00:00:00Z'), NULL, format('%s never comes', s))
  FROM unnest(ARRAY['0 0 30 2 *', '0 0 31 2,4,6,9,11 *', '0 0 30-31 feb *']) AS s;
SELECT isnt(backend.cron_next('0 0 30 2 mon', '2026-01-01 00:00:00Z'), NULL, 'unless its Mondays do');
SELECT is(backend.cron_next(s, '2026-01-01 00:00:00Z'), NULL, format('%L is no schedule', left(s, 40)))
  FROM unnest(ARRAY['', ' ', '* * * *', '* * * * * *', '@daily', '60 * * * *', '* 24 * * *', '* * 0 * *', '* * 32 * *', '* * * 0 *', '* * * 13 *', '* * * * 8',
                    'a * * * *', '* * * * mon-sun', '* * * foo *', '* * * mon *', 'mon * * * *', E'\t* * * *', '0 0 * * * ; x',
                    '* * * * *' || repeat(' ', 200)]) AS s;
-- A leap day on a certain weekday: by the rule above, what begins with a star is wanted together with the other.
SELECT is(backend.cron_next('0 0 29 2 */7', '2026-01-01 00:00:00Z'), '2032-02-29 00:00:00Z', 'a leap day that is a Sunday comes in 2032');

SELECT * FROM finish();
ROLLBACK;
