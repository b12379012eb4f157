-- What builders outside of the Rack may say about a build (BuildUpdate).
ALTER TABLE builds ADD COLUMN entrypoint TEXT NOT NULL DEFAULT '';
ALTER TABLE builds ADD COLUMN logs TEXT NOT NULL DEFAULT '';
