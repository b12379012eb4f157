//! Ports on the loopback address: a stable one for each service, an own one for each process.
//!
//! Both come from below the range that the kernel gives to outgoing connections, so that nothing
//! takes a port between our look and its owner's bind.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::runtime::replace_durably;

const SERVICES: Range<u16> = 10_000..20_000;
const PROCESSES: Range<u16> = 20_000..32_000;

type Stable = BTreeMap<String, BTreeMap<String, u16>>;

/// Who has which port.
#[derive(Debug)]
pub(super) struct Ports {
    file: PathBuf,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// App, service, port; kept in the file.
    stable: Stable,
    processes: BTreeSet<u16>,
}

impl Ports {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = dir.join("ports.json");
        let stable = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Stable::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { file, book: Mutex::new(Book { stable, processes: BTreeSet::new() }) })
    }

    /// The service's port: the one it had, or a new one that it keeps from now on.
    pub(super) fn of_service(&self, app: &str, service: &str) -> io::Result<u16> {
        let known = self.book().stable.get(app).and_then(|services| services.get(service)).copied();
        known.map_or_else(|| self.another(app, service), Ok)
    }

    /// Another port for the service, since somebody else has the one it had.
    pub(super) fn another(&self, app: &str, service: &str) -> io::Result<u16> {
        let mut book = self.book();
        let taken: BTreeSet<u16> = book.stable.values().flat_map(|services| services.values().copied()).collect();
        let (port, _listener) = find(SERVICES, &taken)?;
        book.stable.entry(app.to_owned()).or_default().insert(service.to_owned(), port);
        self.save(&book)?;
        Ok(port)
    }

    /// Whose port it is.
    pub(super) fn owner(&self, port: u16) -> Option<(String, String)> {
        let book = self.book();
        let all = book.stable.iter().flat_map(|(app, services)| services.iter().map(move |(service, port)| (app, service, *port)));
        all.into_iter().find(|(_, _, theirs)| *theirs == port).map(|(app, service, _)| (app.clone(), service.clone()))
    }

    /// Forgets the ports of an app.
    pub(super) fn remove(&self, app: &str) -> io::Result<()> {
        let mut book = self.book();
        match book.stable.remove(app) {
            Some(_) => self.save(&book),
            None => Ok(()),
        }
    }

    /// A free port for one process; give it back with [`Self::release`].
    pub(super) fn take(&self) -> io::Result<u16> {
        let mut book = self.book();
        let (port, _listener) = find(PROCESSES, &book.processes)?;
        book.processes.insert(port);
        Ok(port)
    }

    /// Notes the port of a process that was found again.
    pub(super) fn note(&self, port: u16) {
        self.book().processes.insert(port);
    }

    pub(super) fn release(&self, port: u16) {
        self.book().processes.remove(&port);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, book: &Book) -> io::Result<()> {
        let bytes = serde_json::to_vec_pretty(&book.stable).map_err(io::Error::other)?;
        replace_durably(&self.file, &bytes)
    }
}

fn find(range: Range<u16>, taken: &BTreeSet<u16>) -> io::Result<(u16, TcpListener)> {
    let size = range.end - range.start;
    // From a random place on: two Racks on one machine then hardly ever look at the same port.
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let first = u16::from_ne_bytes(random) % size;
    let candidates = (0..size).map(|step| range.start + (first + step) % size);
    for port in candidates.filter(|port| !taken.contains(port)) {
        if let Ok(listener) = listen(port) {
            return Ok((port, listener));
        }
    }
    Err(io::Error::other(format!("no free port from {} to {}", range.start, range.end - 1)))
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_keeps_its_port_across_restarts() {
        let dir = tempfile::tempdir().unwrap();
        let first = Ports::open(dir.path()).unwrap().of_service("app", "web").unwrap();
        let ports = Ports::open(dir.path()).unwrap();
        assert_eq!(ports.of_service("app", "web").unwrap(), first);
        assert_eq!(ports.owner(first), Some(("app".to_owned(), "web".to_owned())));
    }

    #[test]
    fn a_port_that_somebody_took_meanwhile_is_replaced_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::open(dir.path()).unwrap();
        let first = ports.of_service("app", "web").unwrap();
        let other = ports.another("app", "web").unwrap();
        assert_ne!(first, other);
        assert_eq!((ports.of_service("app", "web").unwrap(), ports.owner(first)), (other, None));
    }

    #[test]
    fn no_two_processes_share_a_port() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports::open(dir.path()).unwrap();
        let taken: BTreeSet<u16> = (0..200).map(|_| ports.take().unwrap()).collect();
        assert_eq!(taken.len(), 200);
        ports.release(*taken.first().unwrap());
    }
}
