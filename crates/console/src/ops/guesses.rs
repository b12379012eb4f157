//! How often passwords may be tried: for each account, for each device that is known to it, and for each network. Counted in the store, so
//! that several servers count together; what is used up is remembered here, so that a flood does not reach the store.
//!
//! Whoever tries an administrator's password ten thousand times uses up the tries of strangers. A browser in which that administrator signed
//! in before has tries of its own, known by a cookie that only we can make; and passkeys, links and the server's command line need none.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{LazyLock, Mutex, PoisonError};

use convox_seal::{LookupKey, Secret};
use convox_store::data_keys::{COOKIES, DataKeyRow};
use convox_store::guesses::Subject;

use super::{Actor, Ops, OpsError};
use crate::hex::hex;

/// Tries are counted for so long from the first one on, milliseconds.
pub(crate) const WINDOW_MS: i64 = 15 * 60 * 1000;
/// Wrong passwords of one account in a window, from devices that are not known to it.
const OF_ACCOUNT: i64 = 10;
/// Wrong passwords from one device that is known to the account.
const OF_DEVICE: i64 = 10;
/// Wrong passwords from one network, whatever the accounts.
const OF_NETWORK: i64 = 100;
/// And from a wide one, of which a provider hands out whole networks.
const OF_WIDE_NETWORK: i64 = 1_000;
/// Mails with a link for a forgotten password, to one address and asked for from one network or a wide one.
const MAILS_TO_ONE: i64 = 3;
const MAILS_OF_NETWORK: i64 = 20;
const MAILS_OF_WIDE_NETWORK: i64 = 100;
/// What is used up that a server remembers by itself. Beyond that it asks the store.
const MOST: usize = 10_000;

/// What is used up, and until when, milliseconds since 1970.
static USED_UP: LazyLock<Mutex<HashMap<Subject, i64>>> = LazyLock::new(Mutex::default);

/// A try that was counted, to be taken back if it was none.
pub(super) struct Counted {
    subjects: Vec<Subject>,
    /// Whether it came from a device that is known to the account.
    pub(super) is_known: bool,
}

/// The network of an address: of IPv6, whoever has one address has all of a /64.
pub(crate) fn network(peer: &str) -> String {
    match peer.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => {
            let [a, b, c, d, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) => peer.to_owned(),
    }
}

/// The wider network of an address: of IPv6 a /48, since whoever gets one has 65,536 of the others.
pub(crate) fn wide_network(peer: &str) -> String {
    match peer.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => {
            let [a, b, c, ..] = ip.segments();
            format!("{a:x}:{b:x}:{c:x}::/48")
        }
        _ => network(peer),
    }
}

impl Ops {
    pub(crate) fn subject(&self, kind: &str, of: &str) -> Subject {
        self.lookup.hash(&Secret::new(format!("\0guesses\0{kind}\0{of}")))
    }

    /// What a browser keeps after it signed in as `email`: something random, a seal by the lookup key, and one by the key of device cookies.
    pub(crate) async fn device(&self, email: &str) -> Result<String, OpsError> {
        let random = hex(&convox_seal::random_bytes::<16>());
        let rows = self.first_data_keys(COOKIES).await?;
        let own = self.cookie_seal(rows.first(), email, &random)?;
        Ok(format!("{random}.{}.{own}", self.outer_seal(email, &random)))
    }

    /// Whether somebody signed in as `email` in this browser before, and the key of device cookies was not rolled since.
    async fn is_known(&self, device: &str, email: &str) -> Result<bool, OpsError> {
        let mut parts = device.split('.');
        let (Some(random), Some(outer), own, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else { return Ok(false) };
        // First by what is in memory: a flood of cookies that nobody gave, or of one whose tries are used up, reaches no database.
        if !convox_seal::constant_time_eq(self.outer_seal(email, random).as_bytes(), outer.as_bytes())
            || used_up_ms(&self.subject("device", device), self.clock.now_ms()).is_some()
        {
            return Ok(false);
        }
        let rows = self.store.data_keys(COOKIES).await?;
        match own {
            Some(own) => Ok(convox_seal::constant_time_eq(self.cookie_seal(rows.first(), email, random)?.as_bytes(), own.as_bytes())),
            // From before these cookies had a key of their own: good until that is rolled.
            None => Ok(rows.first().is_none_or(|newest| newest.version == 1)),
        }
    }

    fn outer_seal(&self, email: &str, random: &str) -> String {
        hex(&self.subject("device cookie", &format!("{email}\0{random}")))
    }

    fn cookie_seal(&self, newest: Option<&DataKeyRow>, email: &str, random: &str) -> Result<String, OpsError> {
        let broken = || OpsError::Conflict("the key of device cookies cannot be opened; tell whoever runs this Console".to_owned());
        let key = self.keyring.unwrap_data_key(&newest.ok_or_else(broken)?.wrapped, COOKIES).map_err(|error| {
            tracing::error!(%error, "the key of device cookies cannot be opened");
            broken()
        })?;
        Ok(hex(&LookupKey::of(&key).hash(&Secret::new(format!("\0device cookie\0{email}\0{random}")))))
    }

    /// Counts a try at the password of `email` before it is looked at, so that many at the same time are no way around.
    pub(super) async fn guess(&self, actor: &Actor, email: &str) -> Result<Counted, OpsError> {
        if let Some(device) = actor.device.as_deref()
            && self.is_known(device, email).await?
        {
            let own = self.subject("device", device);
            if self.count(&own, OF_DEVICE).await?.is_none() {
                return Ok(Counted { subjects: vec![own], is_known: true });
            }
        }
        let mut counted = Vec::new();
        let (near, wide) = (network(&actor.peer), wide_network(&actor.peer));
        let wide = (wide != near).then(|| (self.subject("wide network", &wide), OF_WIDE_NETWORK));
        let near = (self.subject("network", &near), OF_NETWORK);
        for (subject, most) in wide.into_iter().chain([near, (self.subject("account", email), OF_ACCOUNT)]) {
            if let Some(wait_ms) = self.count(&subject, most).await? {
                return Err(OpsError::Limited { wait_s: wait_ms / 1000 + 1 });
            }
            counted.push(subject);
        }
        Ok(Counted { subjects: counted, is_known: false })
    }

    /// Whether a mail to `email` may be asked for; `false` when enough are on their way to it. Counted for addresses that nobody has too, so
    /// that the answer tells nothing of who has an account.
    pub(crate) async fn may_ask_for_mail(&self, actor: &Actor, email: &str) -> Result<bool, OpsError> {
        let (near, wide) = (network(&actor.peer), wide_network(&actor.peer));
        let is_wider = wide != near;
        let wide = is_wider.then(|| (self.subject("mails of wide network", &wide), MAILS_OF_WIDE_NETWORK));
        for (subject, most) in wide.into_iter().chain([(self.subject("mails of network", &near), MAILS_OF_NETWORK)]) {
            if let Some(wait_ms) = self.count(&subject, most).await? {
                return Err(OpsError::Limited { wait_s: wait_ms / 1000 + 1 });
            }
        }
        Ok(self.count(&self.subject("mails to", email), MAILS_TO_ONE).await?.is_none())
    }

    /// It was no guess: it was right.
    pub(super) async fn no_guess(&self, counted: &Counted) -> Result<(), OpsError> {
        for subject in &counted.subjects {
            self.store.forgive_guess(subject).await?;
        }
        Ok(())
    }

    /// Counts one more; how long to wait, milliseconds, if there are too many.
    async fn count(&self, subject: &Subject, most: i64) -> Result<Option<i64>, OpsError> {
        let now_ms = self.clock.now_ms();
        if let Some(until_ms) = used_up_ms(subject, now_ms) {
            return Ok(Some(until_ms - now_ms));
        }
        let tries = self.store.count_guesses(subject, 1, now_ms, WINDOW_MS).await?;
        if tries.count <= most {
            return Ok(None);
        }
        let until_ms = tries.since_ms + WINDOW_MS;
        let mut used_up = USED_UP.lock().unwrap_or_else(PoisonError::into_inner);
        if used_up.len() >= MOST {
            used_up.retain(|_, until_ms| *until_ms > now_ms);
        }
        if used_up.len() < MOST {
            used_up.insert(*subject, until_ms);
        }
        Ok(Some((until_ms - now_ms).max(0)))
    }
}

/// Until when the tries of a subject are used up, as this server remembers.
fn used_up_ms(subject: &Subject, now_ms: i64) -> Option<i64> {
    let known = USED_UP.lock().unwrap_or_else(PoisonError::into_inner).get(subject).copied();
    known.filter(|until_ms| *until_ms > now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_network_has_all_of_its_addresses() {
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::1"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(wide_network("2001:db8:1:2::1"), wide_network("2001:db8:1:ffff::1"));
        assert_ne!(wide_network("2001:db8:1:2::1"), wide_network("2001:db8:2:2::1"));
        assert_eq!((wide_network("10.0.0.1").as_str(), wide_network("::ffff:10.0.0.1").as_str()), ("10.0.0.1", "10.0.0.1"));
        assert_eq!((network("10.0.0.1").as_str(), network("::ffff:10.0.0.1").as_str()), ("10.0.0.1", "10.0.0.1"));
    }
}
