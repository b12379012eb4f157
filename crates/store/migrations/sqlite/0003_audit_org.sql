-- Who may read the log of an organization is asked by id: a name can change hands.

ALTER TABLE audit ADD COLUMN org_id TEXT NOT NULL DEFAULT '';
UPDATE audit SET org_id = COALESCE((SELECT id FROM orgs WHERE orgs.name = audit.org), '');
DROP INDEX audit_org;
CREATE INDEX audit_org ON audit (org_id, id);
