//! Whether the log is whole: each chain from where it begins (or was shortened to) up to its sealed head. Works on rows of the database and
//! on lines of an exported file alike.

use convox_model::Event;
use convox_seal::chain::{ChainKey, Link, RecordDigest, digest};

use super::End;
use super::chain::{self, ANCHOR, name};
use crate::{LONGEST_PAGE, Store, StoreError};

/// No Console has more chains.
const MOST_CHAINS: i64 = 20_000;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which chain.
    pub chain: String,
    /// At which of its entries.
    pub number: i64,
    /// Id of the event there, or of the event whose end it is; empty when there is none.
    pub event: String,
    /// In words.
    pub what: String,
}

/// A place in a chain with its seal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the entry.
    pub number: i64,
    /// The link there, 32 bytes unless somebody edited it.
    pub link: Vec<u8>,
    /// The seal; empty without a key.
    pub seal: Vec<u8>,
}

/// Follows one chain, entry by entry.
pub struct Checker<'k> {
    name: String,
    key: Option<&'k ChainKey>,
    chains: Option<i64>,
    number: i64,
    link: Option<Link>,
    faults: Vec<Fault>,
}

impl<'k> Checker<'k> {
    /// From the anchor on: the entry up to which the chain was shortened, or 0. Seals are looked at if there is a key.
    pub fn new(name: &str, anchor: &Place, key: Option<&'k ChainKey>) -> Self {
        let mut checker = Self {
            name: name.to_owned(),
            key,
            chains: None,
            number: anchor.number,
            link: Link::from_bytes(&anchor.link),
            faults: Vec::new(),
        };
        if anchor.number == 0 && checker.link != Some(Link::first(name)) {
            checker.fault(0, "", "the chain does not begin as chains of this name do");
        }
        checker.seal(ANCHOR, anchor, "the beginning of the chain was not set by this Console: entries before it may have been taken out");
        checker
    }

    /// How many chains there are, of its organization, or of all for one that is nobody's: the head says how many there must be.
    #[must_use]
    pub fn among(self, chains: i64) -> Self {
        Self { chains: Some(chains), ..self }
    }

    fn fault(&mut self, number: i64, event: &str, what: impl Into<String>) {
        self.faults.push(Fault { chain: self.name.clone(), number, event: event.to_owned(), what: what.into() });
    }

    fn seal(&mut self, meaning: &str, place: &Place, words: &str) {
        let is_sealed = match (self.key, Link::from_bytes(&place.link)) {
            (None, _) => true,
            (Some(key), Some(link)) => key.is_seal(meaning, &self.name, place.number, &link, &place.seal),
            (Some(_), None) => false,
        };
        if !is_sealed {
            self.fault(place.number, "", words);
        }
    }

    /// The next entry. `event` is its id, for people.
    pub fn entry(&mut self, number: i64, event: &str, record: &RecordDigest, link: &[u8]) {
        let expected = self.number + 1;
        let link = Link::from_bytes(link);
        if number < expected {
            self.fault(number, event, "an entry of this number is there twice, or out of order");
            return;
        }
        if number > expected {
            let missing = if number == expected + 1 {
                format!("entry {expected} is missing")
            } else {
                format!("entries {expected} to {} are missing", number - 1)
            };
            self.fault(expected, "", missing);
        } else if self.link.is_some_and(|before| link != Some(before.after(number, record))) {
            self.fault(number, event, "this entry was changed, or the link that holds it");
        }
        // From what is written on: so one change is one fault.
        self.number = number;
        self.link = link;
    }

    /// Something else about the entry that was just seen.
    pub fn remark(&mut self, event: &str, what: impl Into<String>) {
        self.fault(self.number, event, what);
    }

    /// The head that the chain should have reached.
    pub fn end(mut self, head: &Place) -> Vec<Fault> {
        if self.number < head.number {
            let words = format!("the newest entries are missing: the chain ends at {} and should reach {}", self.number, head.number);
            self.fault(self.number + 1, "", words);
        } else if self.number > head.number {
            let words = format!(
                "the chain should end at {} and reaches {}: entries were put behind it, or its head was set back",
                head.number, self.number
            );
            self.fault(head.number + 1, "", words);
        } else if self.link.is_some_and(|link| link.as_bytes()[..] != head.link[..]) {
            self.fault(head.number, "", "the newest entry is another one than the head of the chain says");
        }
        self.seal_of_head(head);
        self.faults
    }

    /// Whether there was a register when this head was set.
    pub(crate) fn knew_a_register(&self, head: &Place) -> bool {
        self.said_by(head).is_some_and(|(_, is_registered)| is_registered)
    }

    /// How many chains there were when this head was set, and whether there was a register. Most often as many as there are.
    fn said_by(&self, head: &Place) -> Option<(i64, bool)> {
        let (key, link) = (self.key?, Link::from_bytes(&head.link)?);
        let there = self.chains.unwrap_or(MOST_CHAINS);
        let is = |chains, is_registered| key.is_seal(&chain::head(chains, is_registered), &self.name, head.number, &link, &head.seal);
        let either = |chains| [true, false].into_iter().find(|is_registered| is(chains, *is_registered));
        (0..=there).rev().chain(there + 1..=MOST_CHAINS).find_map(|chains| Some((chains, either(chains)?)))
    }

    fn seal_of_head(&mut self, head: &Place) {
        if self.key.is_none() {
            return;
        }
        let there = self.chains.unwrap_or(MOST_CHAINS);
        match self.said_by(head) {
            None => self.fault(head.number, "", "the head of the chain was not set by this Console: the chain may have been written anew"),
            Some((chains, _)) if chains > there => {
                let words = format!("a chain was taken out as a whole: there were {chains} when this head was set, and there are {there}");
                self.fault(head.number, "", words);
            }
            Some(_) => {}
        }
    }
}

/// A chain, as its row says.
#[derive(Clone, Debug)]
pub struct ChainRow {
    /// Of the row.
    pub id: i64,
    /// Whose events; empty for those of no organization.
    pub org_id: String,
    /// Which writer's.
    pub slot: i64,
    /// Up to where it was shortened.
    pub anchor: Place,
    /// Its newest entry.
    pub head: Place,
}

impl ChainRow {
    /// How it is called.
    pub fn name(&self) -> String {
        name(&self.org_id, self.slot)
    }
}

/// What an entry is.
#[derive(Clone, Debug)]
pub enum Record {
    /// An event: its line and whether the columns by which lists find it say the same.
    Event {
        /// One line of JSON.
        line: String,
        /// Id, as the row has it.
        id: String,
        /// Whether the row's columns agree with the line.
        agrees: bool,
    },
    /// How one ended.
    End(End),
}

/// An entry of a chain.
#[derive(Clone, Debug)]
pub struct EntryRow {
    /// Its number in the chain.
    pub number: i64,
    /// Its link.
    pub link: Vec<u8>,
    /// What it is.
    pub record: Record,
}

impl EntryRow {
    /// The text that the chain holds.
    pub fn line(&self) -> String {
        match &self.record {
            Record::Event { line, .. } => line.clone(),
            Record::End(end) => end.to_line(),
        }
    }

    /// Of the event, or of the one that ended.
    pub fn event_id(&self) -> &str {
        match &self.record {
            Record::Event { id, .. } => id,
            Record::End(end) => &end.of,
        }
    }
}

/// Number, link, id, time, actor, organization's name and id, Rack, app, effect, decision, line.
type EventRow = (i64, Vec<u8>, String, i64, String, String, String, String, String, String, String, String);
/// Number, link, event, status, bytes up, bytes down, duration.
type EndRow = (i64, Vec<u8>, String, Option<i64>, i64, i64, i64);
/// Id, organization, slot, anchor, its link, its seal, head, its link, its seal.
type Chain = (i64, String, i64, i64, Vec<u8>, Vec<u8>, i64, Vec<u8>, Vec<u8>);

impl Store {
    /// All chains, or those of one organization.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_chains(&self, org_id: Option<&str>) -> Result<Vec<ChainRow>, StoreError> {
        let rows: Vec<Chain> = convox_db::query!(&self.db, |pool| sqlx::query_as(
            "SELECT id, org_id, slot, anchor, anchor_link, anchor_seal, number, link, seal FROM audit_chains \
             WHERE $1 = '*' OR org_id = $1 ORDER BY org_id, slot"
        )
        .bind(org_id.unwrap_or("*"))
        .fetch_all(pool)
        .await)?;
        let row = |(id, org_id, slot, anchor, anchor_link, anchor_seal, number, link, seal)| ChainRow {
            id,
            org_id,
            slot,
            anchor: Place { number: anchor, link: anchor_link, seal: anchor_seal },
            head: Place { number, link, seal },
        };
        Ok(rows.into_iter().map(row).collect())
    }

    /// Entries of a chain behind number `after`, up to `end`, in their order: at least one if there is any, and no more than a page or two.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn chain_entries(&self, chain: i64, after: i64, end: i64) -> Result<Vec<EntryRow>, StoreError> {
        let (events, ends): (Vec<EventRow>, Vec<EndRow>) = convox_db::query!(&self.db, |pool| {
            let events = sqlx::query_as(
                "SELECT number, link, id, at_ms, actor, org, org_id, rack, app, effect, decision, event FROM audit \
                 WHERE chain = $1 AND number > $2 AND number <= $3 ORDER BY number LIMIT $4",
            )
            .bind(chain)
            .bind(after)
            .bind(end)
            .bind(LONGEST_PAGE)
            .fetch_all(pool)
            .await?;
            let ends = sqlx::query_as(
                "SELECT number, link, event_id, status, bytes_up, bytes_down, duration_ms FROM audit_ends \
                 WHERE chain = $1 AND number > $2 AND number <= $3 ORDER BY number LIMIT $4",
            )
            .bind(chain)
            .bind(after)
            .bind(end)
            .bind(LONGEST_PAGE)
            .fetch_all(pool)
            .await?;
            (events, ends)
        });
        // Beyond the last of a full page, the other kind is not known to be complete.
        let full = |count: usize, last: Option<i64>| if count as i64 == LONGEST_PAGE { last.unwrap_or(end) } else { end };
        let known = full(events.len(), events.last().map(|row| row.0)).min(full(ends.len(), ends.last().map(|row| row.0)));
        let mut all: Vec<EntryRow> = events.into_iter().map(event_entry).chain(ends.into_iter().map(end_entry)).collect();
        all.retain(|entry| entry.number <= known);
        all.sort_by_key(|entry| entry.number);
        Ok(all)
    }

    /// Checks one chain against its row; gives how many events it has, and what is wrong.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn check_chain(&self, chain: &ChainRow) -> Result<(u64, Vec<Fault>), StoreError> {
        let mut checker = self.checker(chain).await?;
        let (mut events, mut after) = (0, chain.anchor.number);
        loop {
            let entries = self.chain_entries(chain.id, after, chain.head.number).await?;
            let Some(last) = entries.last().map(|entry| entry.number) else { break };
            for entry in &entries {
                checker.entry(entry.number, entry.event_id(), &digest(&entry.line()), &entry.link);
                if let Record::Event { agrees, .. } = entry.record {
                    events += 1;
                    if !agrees {
                        checker.remark(entry.event_id(), "the columns by which lists find this event say something else than the event");
                    }
                }
            }
            after = last;
        }
        Ok((events, checker.end(&chain.head)))
    }

    pub(crate) async fn checker(&self, chain: &ChainRow) -> Result<Checker<'_>, StoreError> {
        let (chains,): (i64,) = convox_db::query!(&self.db, |pool| {
            sqlx::query_as("SELECT COUNT(*) FROM audit_chains WHERE $1 = '' OR org_id = $1").bind(&chain.org_id).fetch_one(pool).await
        })?;
        Ok(Checker::new(&chain.name(), &chain.anchor, self.chain_key.as_ref()).among(chains))
    }

    /// Checks the head of a chain alone: was it set by this Console, and are all chains there that it knew of?
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn check_head(&self, chain: &ChainRow) -> Result<Vec<Fault>, StoreError> {
        let mut checker = self.checker(chain).await?;
        checker.seal_of_head(&chain.head);
        Ok(checker.faults)
    }

    /// What is in no chain, of one organization or of all: how many events there are from before there were chains, and a fault for what should
    /// be in one. Of which organization a stray end is nobody can tell: those are looked for with all.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn check_outside(&self, org_id: Option<&str>) -> Result<(i64, Vec<Fault>), StoreError> {
        let org_id = org_id.unwrap_or("*");
        let (before, strays, ends): (i64, Vec<(String,)>, Vec<(String,)>) = convox_db::query!(&self.db, |pool| {
            let (before,): (i64,) = sqlx::query_as("SELECT COUNT(*) FROM audit WHERE chain = 0 AND ($1 = '*' OR org_id = $1)")
                .bind(org_id)
                .fetch_one(pool)
                .await?;
            let strays = sqlx::query_as(
                "SELECT id FROM audit WHERE ((chain = 0 AND at_ms > (SELECT MIN(at_ms) FROM audit WHERE chain > 0)) \
                 OR (chain <> 0 AND chain NOT IN (SELECT id FROM audit_chains))) AND ($1 = '*' OR org_id = $1) ORDER BY id LIMIT 100",
            )
            .bind(org_id)
            .fetch_all(pool)
            .await?;
            let ends = sqlx::query_as(
                "SELECT event_id FROM audit_ends WHERE $1 = '*' AND chain NOT IN (SELECT id FROM audit_chains) ORDER BY event_id LIMIT 100",
            )
            .bind(org_id)
            .fetch_all(pool)
            .await?;
            (before, strays, ends)
        });
        let fault = |what: &str, (event,)| Fault { chain: String::new(), number: 0, event, what: what.to_owned() };
        let strays =
            strays.into_iter().map(|row| fault("this event is in no chain: it was put in by hand, or its chain was taken out", row));
        let ends = ends
            .into_iter()
            .map(|row| fault("the end of this event is in no chain: it was put in by hand, or its chain was taken out", row));
        Ok((before, strays.chain(ends).collect()))
    }
}

fn event_entry((number, link, id, at_ms, actor, org, org_id, rack, app, effect, decision, line): EventRow) -> EntryRow {
    let agrees = serde_json::from_str::<Event>(&line).is_ok_and(|event| {
        (event.id, event.at_ms, event.actor, event.org, event.org_id, event.rack, event.app, event.effect, event.decision)
            == (id.clone(), at_ms, actor, org, org_id, rack, app, effect, decision)
    });
    EntryRow { number, link, record: Record::Event { line, id, agrees } }
}

fn end_entry((number, link, of, status, bytes_up, bytes_down, duration_ms): EndRow) -> EntryRow {
    let status = status.and_then(|status| u16::try_from(status).ok());
    EntryRow { number, link, record: Record::End(End { of, status, bytes_up, bytes_down, duration_ms }) }
}
