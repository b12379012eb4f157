-- Which sealed text is the present one of its place: an older one that is put back is noticed. Neither table has a row until every live server
-- keeps the register; that it is kept from then on, the wrapped lookup key says, which nobody can make say otherwise without the root key.

CREATE TABLE register_head (
    id BIGINT PRIMARY KEY CHECK (id = 1),
    body BYTEA NOT NULL -- the number of each page, with a MAC by a key that is not in the database
);

CREATE TABLE register_pages (
    page BIGINT PRIMARY KEY, -- 0 to 255: places by the first byte of their hash
    body BYTEA NOT NULL -- places and digests of what stands there, with a MAC
);

ALTER TABLE nodes ADD COLUMN keeps_register BIGINT NOT NULL DEFAULT 0; -- 1: the server writes it with every sealed text
