-- Certificates under which the router serves names.
CREATE TABLE certificates (
    id TEXT PRIMARY KEY,
    domains TEXT NOT NULL, -- JSON list, the first names it
    chain TEXT NOT NULL, -- PEM, leaf first
    key BLOB NOT NULL, -- sealed, bound to id
    issuer TEXT NOT NULL CHECK (issuer IN ('self', 'import', 'acme')),
    expires_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

-- Accounts at certificate authorities.
CREATE TABLE acme_accounts (
    directory TEXT PRIMARY KEY,
    credentials BLOB NOT NULL -- sealed, bound to directory
) STRICT;
