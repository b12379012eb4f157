-- Logins of private image registries.
CREATE TABLE registries (
    server TEXT PRIMARY KEY,
    username TEXT NOT NULL,
    password BLOB NOT NULL -- sealed, bound to the server
) STRICT;
