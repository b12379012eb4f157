-- Members by address, without a join and a sort; sessions that are due for a new id.

ALTER TABLE members ADD COLUMN email TEXT NOT NULL DEFAULT ''; -- of the user; addresses do not change
UPDATE members SET email = (SELECT email FROM users WHERE users.id = members.user_id);
CREATE INDEX members_email ON members (org_id, email);

ALTER TABLE keys ADD COLUMN renew INTEGER NOT NULL DEFAULT 0; -- of a session: 1 when what its owner may do changed after its making
