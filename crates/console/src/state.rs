//! What the rooms share. Wiring, no behaviour.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use convox_model::Clock;
use convox_seal::{Keyring, LookupKey};
use convox_store::Store;
use tokio::sync::watch;

use crate::audit::Audit;
use crate::credentials::Credentials;
use crate::feed::Snapshots;
use crate::mail::Mail;
use crate::meters::Meters;
use crate::ops::installs::Homes;
use crate::ops::sessions::Rules;
use crate::passkeys::Passkeys;
use crate::peer::Proxies;
use crate::strangers::Strangers;
use crate::traces::Traces;

/// A running Console.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) lookup: LookupKey,
    pub(crate) snapshots: Snapshots,
    pub(crate) credentials: Credentials,
    pub(crate) audit: Audit,
    pub(crate) meters: Arc<Meters>,
    /// To a collector, where there is one.
    pub(crate) traces: Option<Traces>,
    pub(crate) strangers: Strangers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) rules: Rules,
    /// Whose word about the caller's address is believed.
    pub(crate) proxies: Proxies,
    /// How this Console is called in links that it sends; `None` when it was not told.
    pub(crate) url: Option<String>,
    pub(crate) passkeys: Passkeys,
    pub(crate) mail: Mail,
    /// Racks of this machine.
    pub(crate) homes: Homes,
    /// Turns true when the server is asked to end.
    pub(crate) draining: AtomicBool,
    /// Turns true shortly before what is still open is cut, when the server ends.
    pub(crate) ending: watch::Sender<bool>,
    /// The runtime beside the shards: where the database is used.
    pub(crate) ordinary: tokio::runtime::Handle,
}

impl App {
    /// Whether the server was asked to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The use cases on this Console's rows.
    pub(crate) fn ops(&self) -> crate::ops::Ops {
        crate::ops::Ops {
            store: self.store.clone(),
            keyring: Arc::clone(&self.keyring),
            lookup: self.lookup.clone(),
            clock: Arc::clone(&self.clock),
            rules: self.rules,
            passkeys: self.passkeys.clone(),
        }
    }

    /// Waits until a change is in effect on this server and on every other one: it has seen it, or refuses by now.
    pub(crate) async fn settle(&self, seq: i64) {
        self.snapshots.settle(seq).await;
        if !self.ops().in_effect(seq).await {
            tracing::warn!(seq, "a server has not taken a change over; it does not trust its memory until it has");
        }
    }
}
