//! What the router has to know: plain data, sent whole at every change.

use std::net::{IpAddr, SocketAddr};

use convox_meters::Times;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything that is routed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Table {
    /// Grows with every change.
    pub(crate) serial: u64,
    /// Where HTTP is answered.
    pub(crate) http: Option<SocketAddr>,
    /// Where HTTPS is answered.
    pub(crate) https: Option<SocketAddr>,
    /// Addresses on which services' own ports are open: the loopback address, and the machine's in the containers' network.
    pub(crate) inside: Vec<IpAddr>,
    pub(crate) routes: Vec<Route>,
    /// Networks from which apps are reached by host name, whatever they say themselves; empty is from everywhere.
    #[serde(default)]
    pub(crate) allowed: Vec<IpNet>,
    pub(crate) certificates: Vec<Certificate>,
    /// Answers to the questions of certificate authorities: token and answer.
    pub(crate) challenges: Vec<(String, String)>,
}

/// One service of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) app: String,
    pub(crate) service: String,
    /// Its own port, the same from release to release.
    pub(crate) port: u16,
    /// Whether its processes speak HTTP without TLS.
    pub(crate) http: bool,
    /// Host names, lower case. None for an internal service.
    pub(crate) hosts: Vec<String>,
    /// Networks from which it is reached by host name; empty is from everywhere.
    pub(crate) allowed: Vec<IpNet>,
    /// Served by HTTP also where it could be by HTTPS.
    pub(crate) plain_http: bool,
    /// Its healthy processes.
    pub(crate) targets: Vec<Target>,
}

/// One healthy process.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) process: String,
    /// Its own port on the loopback address.
    pub(crate) port: u16,
    /// Whether it speaks TLS there.
    #[serde(default)]
    pub(crate) tls: bool,
}

impl Target {
    /// The same process, whatever is known of how it speaks.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.process, self.port) == (&other.process, other.port)
    }
}

/// A certificate for some names. The key is a secret: this is sent over a private socket only and has no place on the disk.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) domains: Vec<String>,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("domains", &self.domains).finish_non_exhaustive()
    }
}

impl Table {
    /// Takes out the route of a service; says whether there was one.
    pub(crate) fn take(&mut self, app: &str, service: &str) -> bool {
        let before = self.routes.len();
        self.routes.retain(|route| route.app != app || route.service != service);
        self.routes.len() != before
    }

    /// The same for all services of an app.
    pub(crate) fn take_app(&mut self, app: &str) -> bool {
        let before = self.routes.len();
        self.routes.retain(|route| route.app != app);
        self.routes.len() != before
    }

    /// Puts a route in the place of the service's earlier one; says whether anything changed.
    pub(crate) fn put(&mut self, route: Route) -> bool {
        match self.routes.iter_mut().find(|old| old.app == route.app && old.service == route.service) {
            Some(old) if *old == route => false,
            Some(old) => {
                *old = route;
                true
            }
            None => {
                self.routes.push(route);
                true
            }
        }
    }
}

/// What the Rack says to the router, one line of JSON each, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Route this from now on.
    Table(Table),
    /// Say when nobody is connected to this process any more.
    Drain(Target),
    /// Say what was counted so far.
    Count,
    /// Stop accepting, finish what is open, and end.
    End,
}

/// What the router says to the Rack.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Who it is, and what it routes: the first line.
    Hello { version: String, pid: u32, table: Table },
    /// The order was carried out, but for what is named: address and reason.
    Applied { serial: u64, http: Option<SocketAddr>, https: Option<SocketAddr>, failures: Vec<(SocketAddr, String)> },
    /// Nobody is connected to this process.
    Drained(Target),
    /// What was counted so far.
    Counted(Counted),
}

/// What a router did since it began.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Requests by host name, of each service.
    pub(crate) services: Vec<Requests>,
    /// Those that went to no service: unknown names, networks that are kept out, HTTP that was sent to HTTPS.
    pub(crate) own: [u64; CLASSES],
    /// Connections of callers, and requests of HTTP/2.
    pub(crate) callers: i64,
    /// Open WebSockets.
    pub(crate) tunnels: i64,
    /// Connections to processes that could not be opened.
    pub(crate) failed: i64,
}

/// Requests of one service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) app: String,
    pub(crate) service: String,
    pub(crate) by_class: [u64; CLASSES],
    /// From the decision to the last byte of the answer, without WebSockets.
    pub(crate) times: Times,
}

/// Statuses by their hundred; the first is of callers who went away before there was one.
pub(crate) const CLASSES: usize = 6;

/// What a status is counted under.
pub(crate) fn class(status: u16) -> usize {
    usize::from(status / 100).min(CLASSES - 1)
}

/// Longest line of the link: more services and certificates than a machine holds.
pub(crate) const LINE_CAP: usize = 64 << 20;
