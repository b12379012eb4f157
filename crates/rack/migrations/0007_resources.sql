-- Passwords of resources that the Rack runs for apps. Kept for as long as the app is, since the data of a resource is.
CREATE TABLE resources (
    app TEXT NOT NULL REFERENCES apps (name) ON DELETE CASCADE,
    name TEXT NOT NULL,
    password BLOB NOT NULL, -- sealed, bound to app and name
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (app, name)
) STRICT;
