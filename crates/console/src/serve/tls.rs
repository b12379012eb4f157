//! The Console's own certificate: given, kept from an earlier start, or made now.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use convox_proxy::{TlsServer, tls_server};

use crate::args::Serve;

/// The certificate to serve with; made and kept in `DIR/tls` if there is none.
pub(super) fn load(args: &Serve) -> Result<TlsServer> {
    let (cert, key) = files(args);
    if args.tls_cert.is_none() && !cert.exists() {
        make(args, &cert, &key)?;
    }
    TlsServer::from_pem(&read(&cert)?, &read(&key)?).with_context(|| format!("could not use {}", cert.display()))
}

/// The same files again, for a server that runs.
pub(super) fn reload(args: &Serve, tls: &TlsServer) -> Result<()> {
    let (cert, key) = files(args);
    tls.reload(&read(&cert)?, &read(&key)?).with_context(|| format!("could not use {}", cert.display()))
}

fn files(args: &Serve) -> (PathBuf, PathBuf) {
    match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => (cert.clone(), key.clone()),
        _ => {
            let dir = args.place.data.join("tls");
            (dir.join("cert.pem"), dir.join("key.pem"))
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("could not read {}", path.display()))
}

fn make(args: &Serve, cert: &Path, key: &Path) -> Result<()> {
    if let Some(dir) = cert.parent() {
        make_private_directory(dir)?;
    }
    let mut names = vec!["localhost", "127.0.0.1", "::1"];
    names.extend(args.name.iter().map(String::as_str));
    let listen = args.listen.ip().to_string();
    if !args.listen.ip().is_unspecified() {
        names.push(&listen);
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let (made_cert, made_key) = tls_server::generate(&names)?;
    // The certificate last: it says that the pair is whole.
    write_private(key, made_key.as_bytes())?;
    write_private(cert, made_cert.as_bytes())
}

/// Makes a directory for its owner only, and those above it.
pub(super) fn make_private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("could not make {}", path.display()))
}

fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().with_context(|| format!("could not write {}", path.display()))
}
