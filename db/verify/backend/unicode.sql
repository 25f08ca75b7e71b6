-- Verify galaxy-backend:backend/unicode on pg

BEGIN;
SET LOCAL ROLE backend_owner;

SELECT data_version, unicode_version, icu_version FROM backend.unicode_version WHERE false;
SELECT codepoint, folding FROM backend.case_foldings WHERE false;
SELECT codepoint, skeleton FROM backend.confusables WHERE false;
SELECT first_codepoint, last_codepoint FROM backend.default_ignorables WHERE false;
SELECT first_codepoint, last_codepoint, kind, scripts FROM backend.name_characters WHERE false;

DO $$
BEGIN
    ASSERT current_setting('server_encoding') = 'UTF8', 'the database is not in UTF8, which normal forms need';
    ASSERT (SELECT count(*) = 1 FROM backend.unicode_version), 'which data these are is not known';
    ASSERT backend.text_fold('ẞtraße') = 'sstrasse', 'case is not folded';
    ASSERT backend.text_skeleton('rn') = backend.text_skeleton('m'), 'nothing looks alike';
    ASSERT backend.text_visible(E'a\u200bb') = 'ab', 'what is not shown is there';
    ASSERT EXISTS (SELECT FROM backend.default_ignorables) AND EXISTS (SELECT FROM backend.name_characters), 'facts are missing';
END;
$$;

ROLLBACK;
