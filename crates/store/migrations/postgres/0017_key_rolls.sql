-- A key that is to take the place of another goes with that one, whatever takes it away.

-- Those whose other key is gone already were left behind: nobody can end them by its name.
WITH RECURSIVE lost (id) AS (
    SELECT id FROM keys WHERE replaces IS NOT NULL AND replaces NOT IN (SELECT id FROM keys)
    UNION SELECT k.id FROM keys k JOIN lost ON k.replaces = lost.id
)
DELETE FROM keys WHERE id IN (SELECT id FROM lost);

ALTER TABLE keys ADD COLUMN heir_of TEXT COLLATE "C" REFERENCES keys (id) ON DELETE CASCADE;
UPDATE keys SET heir_of = replaces WHERE replaces IS NOT NULL;
ALTER TABLE keys DROP COLUMN replaces;
ALTER TABLE keys RENAME COLUMN heir_of TO replaces; -- of a key that will take the place of another: id of that one
CREATE INDEX keys_replaces ON keys (replaces);
