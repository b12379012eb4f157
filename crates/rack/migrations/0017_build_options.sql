-- How a build was asked for (name of its manifest, build arguments), sealed, so that its export can be built the same way elsewhere.
ALTER TABLE builds ADD COLUMN options BLOB;
