-- Sign-ins that wait for another device are counted by network: whoever has one address of IPv6 has very many.

ALTER TABLE device_authorizations ADD COLUMN network TEXT NOT NULL DEFAULT '';
DROP INDEX device_authorizations_peer;
CREATE INDEX device_authorizations_network ON device_authorizations (network);
