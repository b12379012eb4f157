-- Named texts that clients keep for an app, such as which variables a terminal hides.
CREATE TABLE configs (
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value BLOB NOT NULL, -- sealed, bound to app and name
    changed_ms INTEGER NOT NULL,
    PRIMARY KEY (app, name)
) STRICT;
