-- Dead passwords whose streams are to end too: for a Rack that runs beside the command that ended them.
CREATE TABLE cut_passwords (
    hash BLOB PRIMARY KEY, -- keyed hash of the password
    cut_ms INTEGER NOT NULL
) STRICT;
