//! Rolling what seals: the data key of an organization, and the root key over all. On the server's command line only. Each step is made so
//! that the roll can stop after any of them, by `kill -9` too, and go on where it was when it is asked for again; servers go on meanwhile.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use convox_model::OrgId;
use convox_seal::{DataKeys, RootKey};
use convox_store::data_keys::{COOKIES, DataKeyRow, USERS};
use convox_store::orgs::OrgRow;
use convox_store::racks::RackRow;
use convox_store::{Page, StoreError};

use super::factors::sealed_for;
use super::rolls::{open_before, open_next, seal_next};
use super::{Actor, Ops, OpsError};
use crate::credentials::{open_password, seal_password};
use crate::root::{Source, Use};

/// How long running servers may take to know a new root key. They look every half second.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often what was sealed meanwhile by somebody else is looked for again.
const ROUNDS: usize = 8;
/// Rows of one look.
const PAGE: i64 = 500;

/// Told before each step, in words.
pub(crate) type Progress<'p> = &'p mut dyn FnMut(String) -> Result<()>;

/// Whose data key.
pub(crate) enum Owner {
    Org(OrgRow),
    /// What is sealed for people: secrets of their authenticator apps.
    Users,
    /// Device cookies. Nothing is sealed under it: they are void when it is destroyed.
    Cookies,
}

impl Owner {
    fn id(&self) -> &str {
        match self {
            Self::Org(org) => org.id.as_str(),
            Self::Users => USERS,
            Self::Cookies => COOKIES,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Org(org) => &org.name,
            Self::Users => USERS,
            Self::Cookies => COOKIES,
        }
    }
}

impl Ops {
    /// Data keys of an owner, the newest first; made with the first of them.
    pub(super) async fn first_data_keys(&self, owner: &str) -> Result<Vec<DataKeyRow>, OpsError> {
        let rows = self.store.data_keys(owner).await?;
        if !rows.is_empty() {
            return Ok(rows);
        }
        self.store.first_data_key(owner, &self.keyring.new_data_key(owner), self.clock.now_ms()).await?;
        Ok(self.store.data_keys(owner).await?)
    }

    /// Rolls a data key: a new one, everything sealed anew under it, the old one destroyed. Gives how many texts were sealed anew.
    pub(crate) async fn roll_data_key(&self, actor: &Actor, of: &Owner, tell: Progress<'_>) -> Result<usize> {
        let (owner, name) = (of.id(), of.name());
        if matches!(of, Owner::Cookies) {
            // Those of before there was a key for them end with its first roll.
            self.store.first_data_key(owner, &self.keyring.new_data_key(owner), self.clock.now_ms()).await?;
        }
        let rows = self.named(owner).await?;
        let Some(newest) = rows.first() else {
            // Nothing was ever sealed for people.
            return if matches!(of, Owner::Users) { Ok(0) } else { bail!("{name} has no data key; restore the database") };
        };
        let seq = if rows.len() == 1 {
            let version = newest.version + 1;
            tell(format!("{name}: making version {version} of the data key"))?;
            let wrapped = self.keyring.new_data_key(owner);
            let key_id = Some(self.keyring.unwrap_data_key(&wrapped, owner)?.id().to_vec());
            let row = DataKeyRow { owner: owner.to_owned(), version, key_id, wrapped, created_ms: self.clock.now_ms() };
            self.store.add_data_key(&row, &self.act_on(actor, of, "DataKeyRoll", version)).await?
        } else {
            tell(format!("{name}: going on with version {} of the data key", newest.version))?;
            self.store.feed_seq().await?
        };
        // Whoever opens or seals knows the new one before anything is under it.
        self.await_servers(seq).await?;
        let mut resealed = 0;
        for _ in 0..ROUNDS {
            resealed += match of {
                Owner::Org(org) => self.reseal_racks(org, tell).await?,
                Owner::Users => self.reseal_factors(tell).await?,
                Owner::Cookies => 0,
            };
            let newest = self.store.data_keys(owner).await?.first().map_or(0, |row| row.version);
            tell(format!("{name}: destroying older versions of the data key"))?;
            match self.store.destroy_old_data_keys(owner, &self.act_on(actor, of, "DataKeyDestroy", newest)).await {
                Ok(seq) => {
                    self.await_servers(seq).await?;
                    return Ok(resealed);
                }
                // Somebody sealed something in between, under the key that was the newest when they began.
                Err(StoreError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("{name} is being changed all the time; run this again to go on")
    }

    /// Data keys of an owner, newest first, with the names under which ciphertexts know them.
    async fn named(&self, owner: &str) -> Result<Vec<DataKeyRow>> {
        for row in self.store.data_keys(owner).await? {
            if row.key_id.is_none() {
                let key =
                    self.keyring.unwrap_data_key(&row.wrapped, owner).with_context(|| format!("data key {} of {owner}", row.version))?;
                self.store.name_data_key(owner, row.version, &key.id()).await?;
            }
        }
        Ok(self.store.data_keys(owner).await?)
    }

    /// Seals everything of an organization under its newest data key.
    async fn reseal_racks(&self, org: &OrgRow, tell: Progress<'_>) -> Result<usize> {
        let (keys, mut resealed, mut after) = (self.data_keys(org).await?, 0, None);
        loop {
            let page = self.store.list_racks(Some(&org.id), &Page { limit: PAGE, after: after.clone() }).await?;
            let Some(last) = page.last() else { return Ok(resealed) };
            after = Some(last.id.to_string());
            for row in &page {
                resealed += self.reseal_rolled(row, &keys, tell).await?;
            }
            for row in page.iter().filter(|row| !keys.is_newest(&row.password)) {
                tell(format!("{}: sealing the password of {} anew", org.name, row.path()))?;
                let password = open_password(row, &keys).with_context(|| {
                    format!("the stored password of {} cannot be opened, so it cannot be sealed anew; remove that Rack, add it again, and run this again", row.path())
                })?;
                let sealed = seal_password(&keys, &row.org, &row.id, &row.host, row.pin.as_deref(), &password);
                // If it was changed meanwhile, the next round finds it.
                resealed += usize::from(self.store.reseal_rack(row, &sealed).await?);
            }
        }
    }

    /// The passwords of a roll that is under way.
    async fn reseal_rolled(&self, row: &RackRow, keys: &DataKeys, tell: Progress<'_>) -> Result<usize> {
        let Some(roll) = self.store.find_roll(&row.id).await?.filter(|roll| !keys.is_newest(&roll.next) || !keys.is_newest(&roll.before))
        else {
            return Ok(0);
        };
        tell(format!("{}: sealing the passwords of {} anew, whose roll is under way", row.org_name, row.path()))?;
        let next = open_next(keys, row, &roll.next).with_context(|| format!("the next password of {} cannot be opened", row.path()))?;
        let before = open_before(row, &roll, keys)?;
        let before = seal_password(keys, &row.org, &row.id, &row.host, row.pin.as_deref(), &before);
        Ok(2 * usize::from(self.store.reseal_roll(row, &roll, &seal_next(keys, row, &next), &before).await?))
    }

    /// The same for what is sealed for people.
    async fn reseal_factors(&self, tell: Progress<'_>) -> Result<usize> {
        let (keys, mut resealed, mut after) = (self.user_data_keys().await?, 0, None);
        loop {
            let page = self.store.list_totp(&Page { limit: PAGE, after: after.clone() }).await?;
            let Some((last, _)) = page.last() else { return Ok(resealed + self.reseal_under_way(&keys, tell).await?) };
            after = Some(last.to_string());
            for (user, sealed) in page.iter().filter(|(_, sealed)| !keys.is_newest(sealed)) {
                tell(format!("users: sealing the authenticator app of user {user} anew"))?;
                let secret = keys.open(&sealed_for(user), sealed).with_context(|| {
                    format!("the authenticator app of user {user} cannot be opened, so it cannot be sealed anew; take it away, and run this again")
                })?;
                let anew = keys.seal(&sealed_for(user), &secret);
                resealed += usize::from(self.store.reseal_totp(user, sealed, &anew).await?);
            }
        }
    }

    /// And what is being set up meanwhile: people type a code in their own time.
    async fn reseal_under_way(&self, keys: &DataKeys, tell: Progress<'_>) -> Result<usize> {
        let (mut resealed, mut after) = (0, Vec::new());
        loop {
            let page = self.store.list_totp_under_way(&after).await?;
            let Some(last) = page.last() else { return Ok(resealed) };
            after.clone_from(&last.id_hash);
            for one in page.iter().filter(|one| !keys.is_newest(&one.secret)) {
                tell(format!("users: sealing an authenticator app anew that user {} is setting up", one.user))?;
                // One that cannot be opened is begun again.
                let anew = keys.open(&sealed_for(&one.user), &one.secret).ok().map(|secret| keys.seal(&sealed_for(&one.user), &secret));
                resealed += usize::from(self.store.reseal_totp_under_way(one, anew.as_ref()).await?);
            }
        }
    }

    fn act_on(&self, actor: &Actor, of: &Owner, action: &str, version: i64) -> convox_store::Act {
        match of {
            Owner::Org(org) => {
                let mut act = actor.act(&*self.clock, action, format!("/organizations/{}/data-key/{version}", org.name));
                act.event.org = org.name.clone();
                act.event.org_id = org.id.to_string();
                act
            }
            Owner::Users | Owner::Cookies => actor.act(&*self.clock, action, format!("/{}/data-key/{version}", of.id())),
        }
    }

    async fn await_servers(&self, seq: i64) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !self.in_effect(seq).await {
            if tokio::time::Instant::now() > end {
                bail!("a running server does not take changes over; look at its log, and run this again to go on");
            }
        }
        Ok(())
    }

    /// Rolls the root key: the next one is made known to every server, wraps from then on, every data key is wrapped anew, and the old one is
    /// taken away.
    pub(crate) async fn roll_root_key(
        &self,
        actor: &Actor,
        source: &Source,
        given: Option<convox_seal::Secret>,
        tell: Progress<'_>,
    ) -> Result<usize> {
        // Two at once would each make a key, and one of them would be lost with what it wrapped.
        let _held = source.hold()?;
        let mut ring = source.load().await?;
        let old = if ring.find(Use::Old).is_none() {
            let from = ring.id(Use::Active).context("no root key")?;
            if ring.find(Use::Next).is_none() {
                tell("making the next root key".to_owned())?;
                let next = given.unwrap_or_else(RootKey::generate);
                if RootKey::parse(next.expose())?.id() == from {
                    bail!("the next root key is the present one; give another one");
                }
                let before = {
                    let after = ring.with(Use::Next, next);
                    std::mem::replace(&mut ring, after)
                };
                source.save(&before, &ring).await.context(
                    "put the next root key behind the present one, as a further line `next KEY`, on every server; restart them; and run this again",
                )?;
            }
            let next = ring.id(Use::Next).context("no next root key")?;
            // Until every data key is under the next one, both wrap.
            self.store.any_root().await?;
            tell(format!("waiting until every server knows root key {next}"))?;
            self.await_roots(
                |roots| roots.contains(&next),
                "does not know the next root key; copy the file with the root keys to its machine",
            )
            .await?;
            tell(format!("root key {next} wraps from now on"))?;
            let before = {
                let after = ring.turned();
                std::mem::replace(&mut ring, after)
            };
            source.save(&before, &ring).await.context("make the present root key a line `old KEY` and the next one the line without a word, on every server; restart them; and run this again")?;
            from
        } else {
            let old = ring.id(Use::Old).context("no old root key")?;
            tell(format!("going on with taking root key {old} out of use"))?;
            old
        };
        let active = ring.id(Use::Active).context("no root key")?;
        self.await_roots(
            |roots| roots.first() == Some(&active),
            "still wraps with the old root key; copy the file with the root keys to its machine",
        )
        .await?;
        self.keyring.replace(ring.keyring()?);
        let mut rewrapped = 0;
        for round in 0.. {
            let rows = self.store.list_data_keys(None).await?;
            let mut left = Vec::new();
            for row in rows {
                if let Some(wrapped) =
                    self.keyring.rewrap(&row.wrapped, &row.owner).with_context(|| format!("data key {} of {}", row.version, row.owner))?
                {
                    left.push((row, wrapped));
                }
            }
            let count = left.len();
            for (done, (row, wrapped)) in left.into_iter().enumerate() {
                tell(format!("wrapping data key {} of {count} anew", done + 1))?;
                rewrapped += usize::from(self.store.rewrap_data_key(&row, &wrapped).await?);
            }
            match self.store.only_root(&active, &actor.act(&*self.clock, "RootKeyRoll", format!("/root-key/{active}"))).await {
                Ok(seq) => {
                    self.await_servers(seq).await?;
                    break;
                }
                Err(StoreError::Conflict(_)) if round < ROUNDS => {}
                Err(error) => return Err(error.into()),
            }
        }
        tell(format!("taking root key {old} away"))?;
        source.save(&ring, &ring.without(Use::Old)).await.context("take the line `old KEY` away, on every server, and restart them")?;
        self.await_roots(|roots| !roots.contains(&old), "still has the old root key; copy the file with the root keys to its machine")
            .await?;
        Ok(rewrapped)
    }

    /// Waits until each live server has the root keys that are wanted.
    async fn await_roots(&self, wanted: impl Fn(&[String]) -> bool, or_else: &str) -> Result<()> {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let servers = self.store.live_roots().await?;
            let behind = servers.iter().filter(|roots| !wanted(roots)).count();
            if behind == 0 {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                bail!("{behind} of {} servers {or_else}, and run this again to go on", servers.len());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The organization of that name, or all.
    pub(crate) async fn orgs_named(&self, name: Option<&str>) -> Result<Vec<OrgRow>> {
        if let Some(name) = name {
            return Ok(vec![self.store.find_org(name).await?.with_context(|| format!("no such organization: {name}"))?]);
        }
        let mut all: Vec<OrgRow> = Vec::new();
        loop {
            let after = all.last().map(|org| org.id.to_string());
            let page = self.store.list_orgs(None, &Page { limit: PAGE, after }).await?;
            let is_last = (page.len() as i64) < PAGE;
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// How the owner of a data key is called now.
    pub(crate) fn owner_name(orgs: &[OrgRow], owner: &str) -> String {
        orgs.iter().find(|org| org.id == OrgId::from_text(owner)).map_or_else(|| owner.to_owned(), |org| org.name.clone())
    }
}
