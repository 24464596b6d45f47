"""What the catalog says of the structure of tables: a digest of each, and what it is in detail.

The digest is made of the catalog's own rows, which reads no table, deparses nothing and so waits for no lock. It holds
all that the details are made of. Names of indexes and constraints aren't in it.
"""

from __future__ import annotations

RELATED = """ARRAY(
    SELECT format('%I.%I', n.nspname, r.relname)
    FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class r ON r.oid = i.{other}
    JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
    WHERE i.{this} = c.oid ORDER BY n.nspname, r.relname)"""
PARENTS = f"CASE WHEN NOT c.relispartition THEN {RELATED.format(this='inhrelid', other='inhparent')} END"
CHILDREN = f"CASE WHEN c.relhassubclass THEN {RELATED.format(this='inhparent', other='inhrelid')} END"
RULES = """CASE WHEN c.relhasrules THEN ARRAY(
    SELECT format('%I', rulename) FROM pg_catalog.pg_rewrite
    WHERE ev_class = c.oid AND ev_enabled IN ('O', 'A') ORDER BY rulename) END"""
FILLED = """EXISTS (
    SELECT FROM pg_catalog.pg_trigger t
    WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 7 = 7 AND t.tgenabled IN ('O', 'A'))"""
"""Whether a trigger comes before each row's insertion, and so may give it what nobody else does."""

DIGESTED = """
digested AS MATERIALIZED (
    SELECT n.nspname, n.oid AS schema, l.tab, c.oid, pg_catalog.hashtextextended(concat_ws('/', l.tab, c.relkind,
        c.relpersistence, c.relrowsecurity, c.relforcerowsecurity,
        'of', CASE WHEN NOT c.relispartition THEN ARRAY(
            SELECT inhparent FROM pg_catalog.pg_inherits WHERE inhrelid = c.oid ORDER BY 1) END,
        'to', CASE WHEN c.relhassubclass THEN ARRAY(
            SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = c.oid ORDER BY 1) END,
        'by', CASE WHEN c.relhasrules THEN ARRAY(
            SELECT oid FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid AND ev_enabled IN ('O', 'A') ORDER BY 1) END,
        -- Counted, as the planner takes EXISTS for a reason to read all triggers of the database.
        (SELECT count(*) FROM pg_catalog.pg_trigger t
            WHERE t.tgrelid = c.oid AND NOT t.tgisinternal AND t.tgtype & 7 = 7 AND t.tgenabled IN ('O', 'A')), (
            SELECT sum(pg_catalog.hashtextextended(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.atttypmod,
                a.attnotnull, a.attidentity, a.attgenerated, a.attcollation, CASE WHEN a.atthasdef THEN (
                    SELECT adbin::text FROM pg_catalog.pg_attrdef WHERE adrelid = a.attrelid AND adnum = a.attnum) END
                ), 0))
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), (
            SELECT sum(pg_catalog.hashtextextended(concat_ws(' ', i.indisunique, i.indisprimary, i.indimmediate,
                i.indisvalid, i.indisready, i.indislive, i.indnullsnotdistinct, i.indkey, i.indnkeyatts, i.indclass,
                i.indoption, i.indcollation, i.indexprs, i.indpred), 0))
            FROM pg_catalog.pg_index i WHERE i.indrelid = c.oid), (
            SELECT sum(pg_catalog.hashtextextended(concat_ws(' ', k.contype, k.conkey, k.confkey, k.confupdtype,
                k.confdeltype, k.confmatchtype, k.condeferrable, k.condeferred, k.convalidated, k.conbin,
                CASE WHEN k.contype = 'f' THEN (
                    SELECT concat_ws('.', f.relname, nullif(f.relnamespace, n.oid))
                    FROM pg_catalog.pg_class f WHERE f.oid = k.confrelid) || ' ' || (
                    SELECT count(*) FROM pg_catalog.pg_trigger t
                    WHERE t.tgconstraint = k.oid AND t.tgenabled NOT IN ('O', 'A')) END), 0))
            -- PostgreSQL 18 has constraints for NOT NULL too; valid ones say no more than the columns.
            FROM pg_catalog.pg_constraint k
            WHERE k.conrelid = c.oid AND (k.contype IN ('f', 'c', 'p', 'u') OR NOT k.convalidated))
        ), 0) AS digest
    FROM looked_at l
    JOIN pg_catalog.pg_namespace n ON n.nspname = l.name
    -- Looked up by its key, whatever the planner thinks of the whole.
    CROSS JOIN LATERAL (
        SELECT * FROM pg_catalog.pg_class WHERE relnamespace = n.oid AND relname = l.tab OFFSET 0) c)
"""
"""A common table expression after ``looked_at(name, tab)``; of a table that isn't there it has no row."""

DETAILS = rf"""
json_build_object(
    'table', d.tab, 'digest', d.digest, 'kind', c.relkind, 'persistence', c.relpersistence,
    'is_secured', c.relrowsecurity, 'is_forced', c.relforcerowsecurity,
    'parents', {PARENTS}, 'children', {CHILDREN}, 'rules', {RULES}, 'is_filled', {FILLED},
    'columns', (
        SELECT json_object_agg(a.attname, json_build_object(
            'type', format_type(a.atttypid, a.atttypmod),
            'not_null', a.attnotnull AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint k
                WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated),
            'identity', a.attidentity, 'generated', a.attgenerated,
            'default', (SELECT pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef
                WHERE adrelid = c.oid AND adnum = a.attnum),
            'is_exact', coalesce((SELECT collisdeterministic FROM pg_catalog.pg_collation
                WHERE oid = a.attcollation), true)))
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
    'indexes', (
        SELECT coalesce(json_agg(json_build_object(
            'name', x.relname,
            'kind', CASE WHEN i.indisprimary THEN 'PRIMARY KEY' WHEN k.conname IS NOT NULL THEN 'UNIQUE CONSTRAINT'
                WHEN i.indisunique THEN 'UNIQUE INDEX' ELSE 'INDEX' END
                || CASE WHEN i.indimmediate THEN '' ELSE ' DEFERRABLE' END,
            -- How full its pages are is the host's own matter.
            'definition', regexp_replace(split_part(pg_get_indexdef(i.indexrelid),
                format(' ON %I.%I USING ', d.nspname, d.tab), 2), ' WITH \([^)]*\)', ''),
            'columns', ARRAY(SELECT a.attname FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS key(number, place)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.number ORDER BY key.place),
            'condition', pg_get_expr(i.indpred, i.indrelid),
            'is_valid', i.indisvalid AND i.indisready AND i.indislive) ORDER BY x.relname), '[]')
        FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
        LEFT JOIN pg_catalog.pg_constraint k
            ON k.conindid = i.indexrelid AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
        WHERE i.indrelid = c.oid),
    'keys', (
        SELECT coalesce(json_agg(json_build_object(
            'name', k.conname,
            'columns', ARRAY(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY AS key(number, place)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = key.number ORDER BY key.place),
            'schema', CASE WHEN f.relnamespace = d.schema THEN '' ELSE (
                SELECT nspname FROM pg_catalog.pg_namespace WHERE oid = f.relnamespace) END,
            'table', f.relname,
            'target', ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY AS key(number, place)
                JOIN pg_catalog.pg_attribute a ON a.attrelid = f.oid AND a.attnum = key.number ORDER BY key.place),
            'rule', btrim(regexp_replace(
                substring(pg_get_constraintdef(k.oid) from '[^)]*$'), ' NOT (VALID|ENFORCED)', '', 'g')),
            'is_valid', k.convalidated,
            'is_enabled', NOT EXISTS (SELECT FROM pg_catalog.pg_trigger t
                WHERE t.tgconstraint = k.oid AND t.tgenabled NOT IN ('O', 'A'))) ORDER BY k.conname), '[]')
        FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class f ON f.oid = k.confrelid
        WHERE k.conrelid = c.oid AND k.contype = 'f'),
    'checks', (
        SELECT coalesce(json_agg(json_build_object(
            'name', k.conname,
            'definition', regexp_replace(pg_get_constraintdef(k.oid), ' NOT (VALID|ENFORCED)', '', 'g'),
            'is_valid', k.convalidated) ORDER BY k.conname), '[]')
        FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'c'))
"""
"""A JSON object that describes the table of ``digested d`` joined with ``pg_class c``. Expressions are deparsed,
which waits for a table that somebody holds exclusively."""
