//! Command lines that sign in by the browser: authorization codes (RFC 6749 with PKCE) and device authorizations (RFC 8628).
//!
//! What somebody approved is bound to the session that they approved it in: when that ends, by signing out, a new password or the removal of
//! its user, the row goes with it.

use convox_model::{KeyId, UserId};

use crate::{Act, Store, StoreError, change};

/// Device authorizations that one network may have pending.
pub const MOST_OF_ONE: i64 = 50;
/// Device authorizations that one wide network may have pending, of which a provider hands out very many of the others.
pub const MOST_OF_WIDE: i64 = 100;
/// Device authorizations that may be pending in all; beyond that the oldest one of the wide network with most of them gives way.
pub const MOST: i64 = 1_000;
/// Wrong codes that one user may type within [`TRIES_MS`].
pub const MOST_TRIES: i64 = 5;
/// After so long, wrong codes are forgotten, milliseconds.
pub const TRIES_MS: i64 = 10 * 60_000;
/// How much a command line that asks too often waits longer from then on, milliseconds (RFC 8628, 3.5).
const SLOWER_MS: i64 = 5_000;
/// Answers and clocks may be a little early.
const EARLY_MS: i64 = 500;

/// What was approved: the key to be made, and for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approved {
    /// Session in which it was approved.
    pub session: KeyId,
    /// Whose.
    pub user: UserId,
    /// Their address.
    pub email: String,
    /// What the machine calls itself.
    pub device: String,
    /// Name of the key.
    pub key_name: String,
    /// How long it is to live, milliseconds.
    pub key_life_ms: i64,
}

/// An approved authorization request, until its code is exchanged.
#[derive(Clone, Debug)]
pub struct NewCode {
    /// Keyed hash.
    pub hash: [u8; 32],
    /// Session in which it was approved.
    pub session: KeyId,
    /// Of PKCE.
    pub challenge: String,
    /// Where the browser takes the code.
    pub redirect_uri: String,
    /// What the machine calls itself.
    pub device: String,
    /// Name of the key.
    pub key_name: String,
    /// How long it is to live, milliseconds.
    pub key_life_ms: i64,
    /// End of the code, milliseconds since 1970.
    pub expires_ms: i64,
}

/// A code that was taken for its exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenCode {
    /// What was approved.
    pub approved: Approved,
    /// Of PKCE.
    pub challenge: String,
    /// Where the browser took the code.
    pub redirect_uri: String,
}

/// A new device authorization.
#[derive(Clone, Debug)]
pub struct NewDevice {
    /// Its id.
    pub id: String,
    /// Keyed hash of the code that the command line keeps.
    pub device_hash: [u8; 32],
    /// Keyed hash of the code that a person types.
    pub user_hash: [u8; 32],
    /// What the machine calls itself.
    pub device: String,
    /// Address that asked.
    pub peer: String,
    /// Its network: whoever has one address of it has all.
    pub network: String,
    /// The wider one that this is part of.
    pub wide: String,
    /// End, milliseconds since 1970.
    pub expires_ms: i64,
    /// Between two questions, milliseconds.
    pub interval_ms: i64,
}

/// A pending device authorization, as its page shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Its id.
    pub id: String,
    /// What the machine calls itself.
    pub device: String,
    /// Address that asked.
    pub peer: String,
    /// When, milliseconds since 1970.
    pub created_ms: i64,
    /// End, milliseconds since 1970.
    pub expires_ms: i64,
}

/// What a typed code leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Typed {
    /// A pending device authorization.
    Found(DeviceRow),
    /// None: wrong, used or ended. So many more tries are left.
    Wrong(i64),
    /// Too many wrong ones; not even looked up.
    TooMany,
}

/// What a command line learns when it asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Nobody decided yet.
    Pending,
    /// Asked too soon; wait longer from now on.
    SlowDown,
    /// Somebody said no.
    Denied,
    /// Somebody said yes. Told once.
    Approved(Approved),
    /// There is no such code (any more).
    Gone,
}

/// What somebody decided about a device authorization.
#[derive(Clone, Debug)]
pub enum Decision {
    /// A key of that name and life, milliseconds.
    Approve {
        /// Name of the key.
        key_name: String,
        /// How long it is to live, milliseconds.
        key_life_ms: i64,
    },
    /// Nothing.
    Deny,
}

/// Counts a try inside a transaction, before anything is looked up: of many at once no more than allowed get through. Gives how many there
/// were, with this one.
macro_rules! count_try {
    ($tx:ident, $user:expr, $now_ms:expr) => {{
        let (tries,): (i64,) = sqlx::query_as(
            "INSERT INTO code_tries (user_id, tries, since_ms) VALUES ($1, 1, $2) ON CONFLICT (user_id) DO UPDATE SET \
             tries = CASE WHEN code_tries.since_ms <= $3 THEN 1 ELSE code_tries.tries + 1 END, \
             since_ms = CASE WHEN code_tries.since_ms <= $3 THEN excluded.since_ms ELSE code_tries.since_ms END RETURNING tries",
        )
        .bind($user.as_str())
        .bind($now_ms)
        .bind($now_ms - TRIES_MS)
        .fetch_one(&mut *$tx)
        .await?;
        tries
    }};
}

/// Takes a counted try back inside a transaction: it was not a wrong one.
macro_rules! forgive_try {
    ($tx:ident, $user:expr) => {
        sqlx::query("UPDATE code_tries SET tries = tries - 1 WHERE user_id = $1 AND tries > 0")
            .bind($user.as_str())
            .execute(&mut *$tx)
            .await?
    };
}

type Pending = (String, String, String, i64, i64);

fn device_row((id, device, peer, created_ms, expires_ms): Pending) -> DeviceRow {
    DeviceRow { id, device, peer, created_ms, expires_ms }
}

impl Store {
    /// Keeps the code of an approved authorization request.
    ///
    /// # Errors
    /// [`StoreError::Refused`] when the session has ended meanwhile.
    pub async fn insert_code(&self, code: &NewCode, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sqlx::query("DELETE FROM authorization_codes WHERE expires_ms <= $1").bind(act.event.at_ms).execute(&mut *tx).await?;
            sqlx::query(
                "INSERT INTO authorization_codes (code_hash, session_id, challenge, redirect_uri, device, key_name, key_life_ms, expires_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(&code.hash[..])
            .bind(code.session.as_str())
            .bind(code.challenge.as_str())
            .bind(code.redirect_uri.as_str())
            .bind(code.device.as_str())
            .bind(code.key_name.as_str())
            .bind(code.key_life_ms)
            .bind(code.expires_ms)
            .execute(&mut *tx)
            .await?;
        });
        Ok(seq)
    }

    /// Takes a code out: whatever is brought with it, it is used up.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn take_code(&self, hash: &[u8; 32], now_ms: i64) -> Result<Option<TakenCode>, StoreError> {
        type Row = (String, String, String, String, String, i64, i64);
        let found: Option<(Row, Option<(String, String)>)> = convox_db::transaction!(&self.db, |tx| {
            let row: Option<Row> = sqlx::query_as(
                "DELETE FROM authorization_codes WHERE code_hash = $1 \
                 RETURNING session_id, challenge, redirect_uri, device, key_name, key_life_ms, expires_ms",
            )
            .bind(&hash[..])
            .fetch_optional(&mut *tx)
            .await?;
            match row {
                None => None,
                Some(row) => {
                    let owner: Option<(String, String)> =
                        sqlx::query_as("SELECT u.id, u.email FROM keys k JOIN users u ON u.id = k.user_id WHERE k.id = $1")
                            .bind(row.0.as_str())
                            .fetch_optional(&mut *tx)
                            .await?;
                    Some((row, owner))
                }
            }
        });
        let Some(((session, challenge, redirect_uri, device, key_name, key_life_ms, expires_ms), Some((user, email)))) = found else {
            return Ok(None);
        };
        if expires_ms <= now_ms {
            return Ok(None);
        }
        let (session, user) = (KeyId::from_text(session), UserId::from_text(user));
        Ok(Some(TakenCode { approved: Approved { session, user, email, device, key_name, key_life_ms }, challenge, redirect_uri }))
    }

    /// Keeps a new device authorization. Nobody is known yet, so servers need not read everything anew for it: the feed does not move. That
    /// somebody asked is for the log's writer.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when too many of that network are pending.
    pub async fn insert_device(&self, device: &NewDevice, now_ms: i64) -> Result<(), StoreError> {
        convox_db::transaction!(&self.db, |tx| {
            sqlx::query("DELETE FROM device_authorizations WHERE expires_ms <= $1").bind(now_ms).execute(&mut *tx).await?;
            let (of_one, of_wide, all): (i64, i64, i64) = sqlx::query_as(
                "SELECT COALESCE(SUM(CASE WHEN network = $1 THEN 1 ELSE 0 END), 0), COALESCE(SUM(CASE WHEN wide = $2 THEN 1 ELSE 0 END), 0), \
                 COUNT(*) FROM device_authorizations",
            )
            .bind(device.network.as_str())
            .bind(device.wide.as_str())
            .fetch_one(&mut *tx)
            .await?;
            if of_one >= MOST_OF_ONE || of_wide >= MOST_OF_WIDE {
                return Err(StoreError::Conflict("too many sign-ins of your network are waiting; try again in ten minutes".to_owned()));
            }
            // Whoever fills the table loses their own, and keeps nobody else out.
            if all >= MOST {
                sqlx::query(
                    "DELETE FROM device_authorizations WHERE id = (SELECT id FROM device_authorizations WHERE state = 'pending' \
                     AND CASE WHEN wide = '' THEN network ELSE wide END = (SELECT CASE WHEN wide = '' THEN network ELSE wide END AS one \
                     FROM device_authorizations WHERE state = 'pending' GROUP BY one ORDER BY COUNT(*) DESC, MIN(created_ms) LIMIT 1) \
                     ORDER BY created_ms, id LIMIT 1)",
                )
                .execute(&mut *tx)
                .await?;
            }
            sqlx::query(
                "INSERT INTO device_authorizations \
                 (id, device_hash, user_hash, device, peer, created_ms, expires_ms, interval_ms, polled_ms, state, network, wide) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $6, 'pending', $9, $10)",
            )
            .bind(device.id.as_str())
            .bind(&device.device_hash[..])
            .bind(&device.user_hash[..])
            .bind(device.device.as_str())
            .bind(device.peer.as_str())
            .bind(now_ms)
            .bind(device.expires_ms)
            .bind(device.interval_ms)
            .bind(device.network.as_str())
            .bind(device.wide.as_str())
            .execute(&mut *tx)
            .await?;
        });
        Ok(())
    }

    /// Looks a typed code up, for a user who may type a few wrong ones.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn type_code(&self, hash: &[u8; 32], user: &UserId, now_ms: i64) -> Result<Typed, StoreError> {
        Ok(convox_db::transaction!(&self.db, |tx| {
            let tries = count_try!(tx, user, now_ms);
            if tries > MOST_TRIES {
                forgive_try!(tx, user);
                Typed::TooMany
            } else {
                let found: Option<Pending> = sqlx::query_as(
                    "SELECT id, device, peer, created_ms, expires_ms FROM device_authorizations \
                     WHERE user_hash = $1 AND state = 'pending' AND expires_ms > $2",
                )
                .bind(&hash[..])
                .bind(now_ms)
                .fetch_optional(&mut *tx)
                .await?;
                match found {
                    Some(row) => {
                        forgive_try!(tx, user);
                        Typed::Found(device_row(row))
                    }
                    None => Typed::Wrong(MOST_TRIES - tries),
                }
            }
        }))
    }

    /// Decides about the pending device authorization with that typed code. Of several who decide at once one does.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when it is not pending any more, [`StoreError::Refused`] when the session has ended meanwhile.
    pub async fn decide_device(&self, hash: &[u8; 32], session: &KeyId, decision: &Decision, act: &Act) -> Result<i64, StoreError> {
        let (state, session, name, life_ms) = match decision {
            Decision::Approve { key_name, key_life_ms } => ("approved", Some(session.as_str()), key_name.as_str(), *key_life_ms),
            Decision::Deny => ("denied", None, "", 0),
        };
        let ((), seq) = change!(self, act, |tx| {
            let done = sqlx::query(
                "UPDATE device_authorizations SET state = $2, session_id = $3, key_name = $4, key_life_ms = $5 \
                 WHERE user_hash = $1 AND state = 'pending' AND expires_ms > $6",
            )
            .bind(&hash[..])
            .bind(state)
            .bind(session)
            .bind(name)
            .bind(life_ms)
            .bind(act.event.at_ms)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() != 1 {
                return Err(StoreError::Missing("this code was used or has ended; start again on that machine".to_owned()));
            }
        });
        Ok(seq)
    }

    /// A command line asks what was decided. What was is told once.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn poll_device(&self, hash: &[u8; 32], now_ms: i64) -> Result<Polled, StoreError> {
        type Row = (String, i64, i64, i64, String, String, String, i64, Option<String>, Option<String>, Option<String>);
        Ok(convox_db::transaction!(&self.db, |tx| {
            // Moves first: the row's lock makes questions follow each other on PostgreSQL too.
            sqlx::query("UPDATE device_authorizations SET polled_ms = polled_ms WHERE device_hash = $1")
                .bind(&hash[..])
                .execute(&mut *tx)
                .await?;
            let row: Option<Row> = sqlx::query_as(
                "SELECT d.id, d.expires_ms, d.interval_ms, d.polled_ms, d.state, d.device, d.key_name, d.key_life_ms, k.id, u.id, u.email \
                 FROM device_authorizations d LEFT JOIN keys k ON k.id = d.session_id LEFT JOIN users u ON u.id = k.user_id \
                 WHERE d.device_hash = $1",
            )
            .bind(&hash[..])
            .fetch_optional(&mut *tx)
            .await?;
            match row {
                Some((id, expires_ms, interval_ms, polled_ms, state, device, key_name, key_life_ms, session, user, email))
                    if expires_ms > now_ms =>
                {
                    if now_ms < polled_ms + interval_ms - EARLY_MS {
                        sqlx::query("UPDATE device_authorizations SET polled_ms = $2, interval_ms = interval_ms + $3 WHERE id = $1")
                            .bind(id.as_str())
                            .bind(now_ms)
                            .bind(SLOWER_MS)
                            .execute(&mut *tx)
                            .await?;
                        Polled::SlowDown
                    } else if state == "pending" {
                        sqlx::query("UPDATE device_authorizations SET polled_ms = $2 WHERE id = $1")
                            .bind(id.as_str())
                            .bind(now_ms)
                            .execute(&mut *tx)
                            .await?;
                        Polled::Pending
                    } else {
                        sqlx::query("DELETE FROM device_authorizations WHERE id = $1").bind(id.as_str()).execute(&mut *tx).await?;
                        match (state.as_str(), session, user, email) {
                            ("approved", Some(session), Some(user), Some(email)) => Polled::Approved(Approved {
                                session: KeyId::from_text(session),
                                user: UserId::from_text(user),
                                email,
                                device,
                                key_name,
                                key_life_ms,
                            }),
                            _ => Polled::Denied,
                        }
                    }
                }
                _ => Polled::Gone,
            }
        }))
    }
}
