-- Which sealed text is the present one of its place: an older one that is put back is noticed. Neither table has a row until every live server
-- keeps the register; that it is kept from then on, the wrapped lookup key says, which nobody can make say otherwise without the root key.

CREATE TABLE register_head (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    body BLOB NOT NULL -- the number of each page, with a MAC by a key that is not in the database
) STRICT;

CREATE TABLE register_pages (
    page INTEGER PRIMARY KEY, -- 0 to 255: places by the first byte of their hash
    body BLOB NOT NULL -- places and digests of what stands there, with a MAC
) STRICT;

ALTER TABLE nodes ADD COLUMN keeps_register INTEGER NOT NULL DEFAULT 0; -- 1: the server writes it with every sealed text
