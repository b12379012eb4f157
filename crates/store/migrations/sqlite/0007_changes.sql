-- Which rows the data path must read again: written by triggers, so that no change can forget it, cascades included. The feed moves first in
-- every change, so its position at the time of the trigger is the change's own.

CREATE TABLE changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    seq INTEGER NOT NULL, -- position of the feed
    what TEXT NOT NULL, -- org, user (with memberships and whether there is a second factor), key, rack
    row_id TEXT NOT NULL
) STRICT;
CREATE INDEX changes_seq ON changes (seq);

CREATE TRIGGER changes_org_insert AFTER INSERT ON orgs BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', NEW.id FROM feed WHERE id = 1;
END;
-- A Rack's name has its organization's in it; whether members need a second factor is known of each of them.
CREATE TRIGGER changes_org_update AFTER UPDATE ON orgs BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', NEW.id FROM feed WHERE id = 1;
    INSERT INTO changes (seq, what, row_id)
        SELECT feed.seq, 'rack', racks.id FROM racks, feed WHERE feed.id = 1 AND racks.org_id = NEW.id AND NEW.name <> OLD.name;
    INSERT INTO changes (seq, what, row_id)
        SELECT feed.seq, 'user', members.user_id FROM members, feed
        WHERE feed.id = 1 AND members.org_id = NEW.id AND NEW.needs_factor <> OLD.needs_factor;
END;
CREATE TRIGGER changes_org_delete AFTER DELETE ON orgs BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'org', OLD.id FROM feed WHERE id = 1;
END;

CREATE TRIGGER changes_user_insert AFTER INSERT ON users BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', NEW.id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_user_update AFTER UPDATE ON users BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', NEW.id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_user_delete AFTER DELETE ON users BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', OLD.id FROM feed WHERE id = 1;
END;

CREATE TRIGGER changes_member_insert AFTER INSERT ON members BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', NEW.user_id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_member_update AFTER UPDATE ON members BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', NEW.user_id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_member_delete AFTER DELETE ON members BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', OLD.user_id FROM feed WHERE id = 1;
END;

CREATE TRIGGER changes_passkey_insert AFTER INSERT ON passkeys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', NEW.user_id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_passkey_delete AFTER DELETE ON passkeys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', OLD.user_id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_totp_insert AFTER INSERT ON totp BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', NEW.user_id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_totp_delete AFTER DELETE ON totp BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'user', OLD.user_id FROM feed WHERE id = 1;
END;

CREATE TRIGGER changes_key_insert AFTER INSERT ON keys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'key', NEW.id FROM feed WHERE id = 1;
END;
-- That a key was used is no change of it, unless its end moves with that.
CREATE TRIGGER changes_key_update AFTER UPDATE ON keys
WHEN NEW.used_ms IS OLD.used_ms OR NEW.expires_ms IS NOT OLD.expires_ms BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'key', NEW.id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_key_delete AFTER DELETE ON keys BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'key', OLD.id FROM feed WHERE id = 1;
END;

CREATE TRIGGER changes_rack_insert AFTER INSERT ON racks BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'rack', NEW.id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_rack_update AFTER UPDATE ON racks BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'rack', NEW.id FROM feed WHERE id = 1;
END;
CREATE TRIGGER changes_rack_delete AFTER DELETE ON racks BEGIN
    INSERT INTO changes (seq, what, row_id) SELECT seq, 'rack', OLD.id FROM feed WHERE id = 1;
END;
