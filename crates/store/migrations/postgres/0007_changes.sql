-- Which rows the data path must read again: written by triggers, so that no change can forget it, cascades included. The feed moves first in
-- every change, so its position at the time of the trigger is the change's own.

CREATE TABLE changes (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    seq BIGINT NOT NULL, -- position of the feed
    what TEXT NOT NULL, -- org, user (with memberships and whether there is a second factor), key, rack
    row_id TEXT NOT NULL
);
CREATE INDEX changes_seq ON changes (seq);

CREATE FUNCTION note_org() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', COALESCE(NEW.id, OLD.id) FROM feed WHERE id = 1;
    -- A Rack's name has its organization's in it.
    IF TG_OP = 'UPDATE' AND NEW.name <> OLD.name THEN
        INSERT INTO changes (seq, what, row_id) SELECT feed.seq, 'rack', racks.id FROM racks, feed WHERE feed.id = 1 AND racks.org_id = NEW.id;
    END IF;
    -- Whether members need a second factor is known of each of them.
    IF TG_OP = 'UPDATE' AND NEW.needs_factor <> OLD.needs_factor THEN
        INSERT INTO changes (seq, what, row_id)
            SELECT feed.seq, 'user', members.user_id FROM members, feed WHERE feed.id = 1 AND members.org_id = NEW.id;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_org AFTER INSERT OR UPDATE OR DELETE ON orgs FOR EACH ROW EXECUTE FUNCTION note_org();

CREATE FUNCTION note_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', COALESCE(NEW.id, OLD.id) FROM feed WHERE id = 1;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_user AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note_user();

CREATE FUNCTION note_member() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', COALESCE(NEW.user_id, OLD.user_id) FROM feed WHERE id = 1;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_member AFTER INSERT OR UPDATE OR DELETE ON members FOR EACH ROW EXECUTE FUNCTION note_member();

CREATE TRIGGER changes_passkey AFTER INSERT OR DELETE ON passkeys FOR EACH ROW EXECUTE FUNCTION note_member();
CREATE TRIGGER changes_totp AFTER INSERT OR DELETE ON totp FOR EACH ROW EXECUTE FUNCTION note_member();

CREATE FUNCTION note_key() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'key', COALESCE(NEW.id, OLD.id) FROM feed WHERE id = 1;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_key AFTER INSERT OR DELETE ON keys FOR EACH ROW EXECUTE FUNCTION note_key();
-- That a key was used is no change of it, unless its end moves with that.
CREATE TRIGGER changes_key_update AFTER UPDATE ON keys FOR EACH ROW
WHEN (NEW.used_ms IS NOT DISTINCT FROM OLD.used_ms OR NEW.expires_ms IS DISTINCT FROM OLD.expires_ms)
EXECUTE FUNCTION note_key();

CREATE FUNCTION note_rack() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'rack', COALESCE(NEW.id, OLD.id) FROM feed WHERE id = 1;
    RETURN NULL;
END $$;
CREATE TRIGGER changes_rack AFTER INSERT OR UPDATE OR DELETE ON racks FOR EACH ROW EXECUTE FUNCTION note_rack();

-- Servers listen instead of only asking ten times a second.
CREATE FUNCTION tell_feed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('convox_feed', NEW.seq::TEXT);
    RETURN NULL;
END $$;
CREATE TRIGGER feed_moved AFTER UPDATE ON feed FOR EACH ROW WHEN (NEW.seq <> OLD.seq) EXECUTE FUNCTION tell_feed();
