//! The register of what is sealed: each sealed text that is written is entered in the same transaction, and each that is read is judged by it
//! as of the same moment. What is not the present text of its place opens nowhere ([`Sealed::judged`]).
//!
//! Texts are written by those who hold the feed, one after the other: so is the register.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use convox_model::{RackId, UserId};
use convox_seal::{Place, RegisterHead, RegisterKey, RegisterPage, Sealed, WrappedDataKey};

use crate::data_keys::{DataKeyRow, LOOKUP, wrapped_by_the_root};
use crate::feed::{GONE_AFTER_MS, now_ms};
use crate::snapshot::moment;
use crate::{Act, Store, StoreError, change};

/// With more places on a list, all pages are read at once.
pub(crate) const MANY: usize = 8;

/// Of a Rack's present password.
pub(crate) fn password(rack: &str) -> Place {
    Place::of("racks", rack, "password")
}

/// Of the next password of a roll.
pub(crate) fn next(rack: &str) -> Place {
    Place::of("rack_rolls", rack, "next")
}

/// Of the one before.
pub(crate) fn before(rack: &str) -> Place {
    Place::of("rack_rolls", rack, "before")
}

/// Of the secret of an authenticator app.
pub(crate) fn totp(user: &str) -> Place {
    Place::of("totp", user, "secret")
}

/// What a server knows of the register beside its rows.
#[derive(Clone)]
pub(crate) struct Register {
    key: RegisterKey,
    state: Arc<State>,
}

struct State {
    /// Whether it is kept: then it must be there.
    is_kept: AtomicBool,
    /// The highest number that was seen: it never goes back.
    seen: AtomicU64,
}

/// Head and page, as they are to be stored.
type Moved = (Vec<u8>, Vec<u8>);

impl Register {
    /// The head, if it is one of ours and none of an earlier time.
    fn head(&self, bytes: &[u8], at_least: u64) -> Option<RegisterHead> {
        self.key.read_head(bytes).filter(|head| head.number() >= at_least)
    }

    /// Moves head and page, as they are stored, on to what stands at a place from now on; `None` when nothing is to be written.
    pub(crate) fn moved(
        &self,
        head: Option<Vec<u8>>,
        page: Option<Vec<u8>>,
        place: Place,
        sealed: Option<&Sealed>,
    ) -> Result<Option<Moved>, StoreError> {
        if sealed.is_some_and(|sealed| !sealed.is_current()) {
            return Err(StoreError::Refused("what was sealed was put back by somebody, and is not written anew".to_owned()));
        }
        if head.is_none() && !self.state.is_kept.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let head = head.and_then(|head| self.head(&head, self.state.seen.load(Ordering::Relaxed)));
        let found = head.and_then(|head| Some((head.page(&self.key, place.page(), page.as_deref())?, head)));
        let Some((mut page, mut head)) = found else {
            // What is taken away may go: nothing on such a page opens anyway.
            return if sealed.is_none() { Ok(None) } else { Err(damaged()) };
        };
        if !page.set(place, sealed.map(Sealed::as_bytes)) {
            return Ok(None);
        }
        head.put(place.page(), &mut page);
        Ok(Some((self.key.write_head(&head), self.key.write_page(place.page(), &page))))
    }

    /// A new one behind `number`, with what stands at each place: the head, and each page with its index.
    fn made(&self, number: u64, standing: &[Standing]) -> (Vec<u8>, Vec<(u8, Vec<u8>)>) {
        let (mut head, mut pages) = (RegisterHead::after(number), BTreeMap::<u8, RegisterPage>::new());
        for one in standing {
            pages.entry(one.place().page()).or_default().set(one.place(), Some(&one.text));
        }
        for (index, page) in &mut pages {
            head.put(*index, page);
        }
        // A register of nothing has a number too.
        if pages.is_empty() {
            head = RegisterHead::after(number + 1);
        }
        let pages = pages.iter().map(|(index, page)| (*index, self.key.write_page(*index, page))).collect();
        (self.key.write_head(&head), pages)
    }
}

fn damaged() -> StoreError {
    let words =
        "the register of what is sealed does not hold: rows were put back or written past the Console; run `convox-console keys check`";
    StoreError::Refused(words.to_owned())
}

/// Enters, inside a transaction that holds the feed, what stands at a place from now on; `None` when nothing does.
macro_rules! enter {
    ($store:expr, $tx:ident, $place:expr, $sealed:expr) => {
        if let Some(register) = &$store.register {
            let (place, sealed): (convox_seal::Place, Option<&convox_seal::Sealed>) = ($place, $sealed);
            let head: Option<(Vec<u8>,)> = sqlx::query_as("SELECT body FROM register_head WHERE id = 1").fetch_optional(&mut *$tx).await?;
            let page: Option<(Vec<u8>,)> = sqlx::query_as("SELECT body FROM register_pages WHERE page = $1")
                .bind(i64::from(place.page()))
                .fetch_optional(&mut *$tx)
                .await?;
            if let Some((head, page)) = register.moved(head.map(|(body,)| body), page.map(|(body,)| body), place, sealed)? {
                $crate::register::put_page!($tx, place.page(), &page[..]);
                sqlx::query("UPDATE register_head SET body = $1 WHERE id = 1").bind(&head[..]).execute(&mut *$tx).await?;
            }
        }
    };
}
pub(crate) use enter;

macro_rules! put_page {
    ($tx:ident, $index:expr, $body:expr) => {
        sqlx::query("INSERT INTO register_pages (page, body) VALUES ($1, $2) ON CONFLICT (page) DO UPDATE SET body = excluded.body")
            .bind(i64::from($index))
            .bind($body)
            .execute(&mut *$tx)
            .await?
    };
}
pub(crate) use put_page;

/// The rows of the register, as of one moment.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) head: Option<Vec<u8>>,
    pub(crate) pages: BTreeMap<u8, Vec<u8>>,
}

/// Reads, inside a transaction that sees one moment, what the register says of places.
macro_rules! read_register {
    ($tx:ident, $places:expr) => {{
        let places: &[convox_seal::Place] = $places;
        let mut rows = $crate::register::Rows::default();
        if !places.is_empty() {
            let head: Option<(Vec<u8>,)> = sqlx::query_as("SELECT body FROM register_head WHERE id = 1").fetch_optional(&mut *$tx).await?;
            rows.head = head.map(|(body,)| body);
        }
        if rows.head.is_some() {
            if places.len() > $crate::register::MANY {
                let all: Vec<(i64, Vec<u8>)> = sqlx::query_as("SELECT page, body FROM register_pages").fetch_all(&mut *$tx).await?;
                rows.pages.extend(all.into_iter().filter_map(|(index, body)| Some((u8::try_from(index).ok()?, body))));
            } else {
                for place in places {
                    let page: Option<(Vec<u8>,)> = sqlx::query_as("SELECT body FROM register_pages WHERE page = $1")
                        .bind(i64::from(place.page()))
                        .fetch_optional(&mut *$tx)
                        .await?;
                    rows.pages.extend(page.map(|(body,)| (place.page(), body)));
                }
            }
        }
        rows
    }};
}
pub(crate) use read_register;

/// Taken before a moment begins, so that it sees at least what was seen before.
pub(crate) struct Judging {
    register: Option<Register>,
    at_least: u64,
}

/// Says of sealed texts whether they are the present ones.
pub(crate) enum Judge {
    /// No register is kept (yet): nothing speaks against anything.
    Silent,
    /// It should be there, and is not as it was written: everything is suspicious.
    Damaged,
    /// By it: its number, and those of its pages that were read and belong under its head.
    By(u64, BTreeMap<u8, RegisterPage>),
}

impl Judging {
    pub(crate) fn by(self, rows: Rows) -> Judge {
        let Some(Register { key, state }) = self.register else { return Judge::Silent };
        match rows.head {
            None if state.is_kept.load(Ordering::Relaxed) => Judge::Damaged,
            None => Judge::Silent,
            Some(bytes) => match key.read_head(&bytes).filter(|head| head.number() >= self.at_least) {
                None => Judge::Damaged,
                Some(head) => {
                    state.is_kept.store(true, Ordering::Relaxed);
                    state.seen.fetch_max(head.number(), Ordering::Relaxed);
                    let page = |(index, body): (u8, Vec<u8>)| Some((index, head.page(&key, index, Some(&body))?));
                    Judge::By(head.number(), rows.pages.into_iter().filter_map(page).collect())
                }
            },
        }
    }
}

impl Judge {
    fn is_current(&self, place: Place, bytes: &[u8]) -> bool {
        match self {
            Self::Silent => true,
            Self::Damaged => false,
            Self::By(_, pages) => pages.get(&place.page()).is_some_and(|page| page.holds(place, bytes)),
        }
    }

    pub(crate) fn judged(&self, place: Place, bytes: Vec<u8>) -> Sealed {
        let is_current = self.is_current(place, &bytes);
        Sealed::judged(bytes, is_current)
    }
}

/// A sealed text, and what it is to people.
struct Standing {
    table: String,
    id: String,
    name: String,
    text: Vec<u8>,
}

impl Standing {
    fn place(&self) -> Place {
        match self.table.as_str() {
            "racks" => password(&self.id),
            "next" => next(&self.id),
            "before" => before(&self.id),
            _ => totp(&self.id),
        }
    }

    fn words(&self) -> String {
        match self.table.as_str() {
            "racks" => format!("the password of Rack {}", self.name),
            "next" => format!("the next password of Rack {}, whose roll is under way", self.name),
            "before" => format!("the password before of Rack {}, whose roll is under way", self.name),
            _ => format!("the authenticator app of {}", self.name),
        }
    }
}

/// Every sealed text that there is, inside a transaction. What is not named here is refused once the register is kept.
macro_rules! standing {
    ($tx:ident) => {{
        let rows: Vec<(String, String, String, Vec<u8>)> = sqlx::query_as(
            "SELECT 'racks', r.id, o.name || '/' || r.name, r.password FROM racks r JOIN orgs o ON o.id = r.org_id \
             UNION ALL SELECT 'next', r.id, o.name || '/' || r.name, p.next \
             FROM rack_rolls p JOIN racks r ON r.id = p.rack_id JOIN orgs o ON o.id = r.org_id \
             UNION ALL SELECT 'before', r.id, o.name || '/' || r.name, p.before \
             FROM rack_rolls p JOIN racks r ON r.id = p.rack_id JOIN orgs o ON o.id = r.org_id \
             UNION ALL SELECT 'totp', u.id, u.email, t.secret FROM totp t JOIN users u ON u.id = t.user_id",
        )
        .fetch_all(&mut *$tx)
        .await?;
        rows.into_iter().map(|(table, id, name, text)| Standing { table, id, name, text }).collect::<Vec<_>>()
    }};
}

/// Writes a whole register inside a transaction, in place of what is there.
macro_rules! write_all {
    ($tx:ident, $made:expr) => {
        let (head, pages): (Vec<u8>, Vec<(u8, Vec<u8>)>) = $made;
        sqlx::query("DELETE FROM register_pages").execute(&mut *$tx).await?;
        for (index, page) in &pages {
            put_page!($tx, *index, &page[..]);
        }
        sqlx::query("INSERT INTO register_head (id, body) VALUES (1, $1) ON CONFLICT (id) DO UPDATE SET body = excluded.body")
            .bind(&head[..])
            .execute(&mut *$tx)
            .await?;
    };
}

/// What a look at the whole register showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whether it is kept at all: not while a server of an earlier version runs.
    pub is_kept: bool,
    /// Its number, which moves with every sealed text that is written and never goes back; `None` when it is not as it was written.
    pub number: Option<u64>,
    /// Sealed texts that there are.
    pub texts: usize,
    /// Those that are not the present ones of their places, in words.
    pub put_back: Vec<String>,
}

impl Store {
    /// Judges sealed texts by the register from now on, with this key; `is_kept` says that it must be there.
    #[must_use]
    pub fn registering(self, key: RegisterKey, is_kept: bool) -> Self {
        let state = Arc::new(State { is_kept: AtomicBool::new(is_kept), seen: AtomicU64::new(0) });
        Self { register: Some(Register { key, state }), ..self }
    }

    /// Whether the register is known to be kept.
    pub fn keeps_register(&self) -> bool {
        self.register.as_ref().is_some_and(|register| register.state.is_kept.load(Ordering::Relaxed))
    }

    /// The lookup key says that it is: from now on it must be there.
    pub fn must_keep_register(&self) {
        if let Some(register) = &self.register {
            register.state.is_kept.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn judging(&self) -> Judging {
        let at_least = self.register.as_ref().map_or(0, |register| register.state.seen.load(Ordering::Relaxed));
        Judging { register: self.register.clone(), at_least }
    }

    /// Begins to keep the register, with what is sealed now, unless a live server does not keep it yet; `true` when it is kept. From then on the
    /// lookup key says so: `marked` takes the place of `lookup`. `node` is the server that asks, if it is one: it keeps it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the lookup key was wrapped anew meanwhile.
    pub async fn keep_register(&self, node: Option<&str>, lookup: &DataKeyRow, marked: &WrappedDataKey) -> Result<bool, StoreError> {
        let Some(register) = &self.register else { return Ok(false) };
        // One that was taken out is not begun again as if nothing had been.
        if self.keeps_register() {
            return Ok(true);
        }
        let kept = convox_db::transaction!(&self.db, |tx| {
            sqlx::query("UPDATE feed SET seq = seq WHERE id = 1").execute(&mut *tx).await?;
            if let Some(node) = node {
                sqlx::query("UPDATE nodes SET keeps_register = 1 WHERE id = $1").bind(node).execute(&mut *tx).await?;
            }
            let live_from = now_ms!(self, &mut *tx) - GONE_AFTER_MS;
            let (there,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM register_head").fetch_one(&mut *tx).await?;
            let (others,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM nodes WHERE beat_ms >= $1 AND keeps_register = 0")
                .bind(live_from)
                .fetch_one(&mut *tx)
                .await?;
            if there == 0 && others == 0 {
                wrapped_by_the_root!(tx, marked);
                let done = sqlx::query("UPDATE data_keys SET wrapped = $4 WHERE owner = $1 AND version = $2 AND wrapped = $3")
                    .bind(LOOKUP)
                    .bind(lookup.version)
                    .bind(lookup.wrapped.as_bytes())
                    .bind(marked.as_bytes())
                    .execute(&mut *tx)
                    .await?;
                if done.rows_affected() == 0 {
                    return Err(StoreError::Conflict("the lookup key was wrapped anew meanwhile".to_owned()));
                }
                let standing = standing!(tx);
                write_all!(tx, register.made(0, &standing));
            }
            there > 0 || others == 0
        });
        if kept {
            register.state.is_kept.store(true, Ordering::Relaxed);
        }
        Ok(kept)
    }

    /// Looks at everything that is sealed.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn check_register(&self) -> Result<Checked, StoreError> {
        let judging = self.judging();
        let (rows, standing) = moment!(&self.db, |tx| {
            let standing = standing!(tx);
            // One more place than there may be texts: the head is read in any case.
            let places: Vec<Place> = standing.iter().map(Standing::place).chain([password("")]).collect();
            (read_register!(tx, &places), standing)
        });
        let judge = judging.by(rows);
        let number = if let Judge::By(number, _) = &judge { Some(*number) } else { None };
        let put_back = standing.iter().filter(|one| !judge.is_current(one.place(), &one.text)).map(Standing::words).collect();
        Ok(Checked { is_kept: !matches!(judge, Judge::Silent), number, texts: standing.len(), put_back })
    }

    /// Takes what is sealed now for the present texts, after somebody has looked at what [`Self::check_register`] named. Servers read all Racks
    /// again.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when no register is kept yet.
    pub async fn accept_register(&self, act: &Act) -> Result<i64, StoreError> {
        let none = || StoreError::Conflict("no register is kept yet: a server of an earlier version runs".to_owned());
        let register = self.register.as_ref().ok_or_else(none)?;
        let ((), seq) = change!(self, act, |tx| {
            let head: Option<(Vec<u8>,)> = sqlx::query_as("SELECT body FROM register_head WHERE id = 1").fetch_optional(&mut *tx).await?;
            if head.is_none() && !register.state.is_kept.load(Ordering::Relaxed) {
                return Err(none());
            }
            let number = head.and_then(|(body,)| register.head(&body, 0)).map_or(0, |head| head.number());
            let number = number.max(register.state.seen.load(Ordering::Relaxed));
            let standing = standing!(tx);
            write_all!(tx, register.made(number, &standing));
            sqlx::query("UPDATE racks SET name = name").execute(&mut *tx).await?;
        });
        Ok(seq)
    }
}

/// Places of the texts of one Rack's roll.
pub(crate) fn of_roll(rack: &RackId) -> [Place; 2] {
    [next(rack.as_str()), before(rack.as_str())]
}

/// Place of the text of one person.
pub(crate) fn of_user(user: &UserId) -> Place {
    totp(user.as_str())
}
