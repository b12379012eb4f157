-- Sign-ins that wait for another device are counted by a wider network too; and codes that were tried in vain make the next wait longer.

ALTER TABLE device_authorizations ADD COLUMN wide TEXT NOT NULL DEFAULT ''; -- of IPv6 a /48
ALTER TABLE factor_tries ADD COLUMN level BIGINT NOT NULL DEFAULT 0; -- windows that were used up, of late
