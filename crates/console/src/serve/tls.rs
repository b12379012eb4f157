//! The Console's own certificate: given, kept from an earlier start, or made now.

use std::path::Path;

use anyhow::{Context as _, Result};
use convox_proxy::{TlsFiles, TlsServer};

use crate::args::Serve;

/// The certificate to serve with; made and kept in `DIR/tls` if there is none.
pub(super) fn load(args: &Serve) -> Result<TlsServer> {
    let files = files(args);
    if args.tls_cert.is_none() {
        let mut names = vec!["localhost", "127.0.0.1", "::1"];
        names.extend(args.name.iter().map(String::as_str));
        let listen = args.listen.ip().to_string();
        if !args.listen.ip().is_unspecified() {
            names.push(&listen);
        }
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(*name));
        files.make(&names).context("could not make a certificate")?;
    }
    Ok(files.load()?)
}

/// The same files again, for a server that runs.
pub(super) fn reload(args: &Serve, tls: &TlsServer) -> Result<()> {
    Ok(files(args).reload(tls)?)
}

/// Where they are.
pub(super) fn files(args: &Serve) -> TlsFiles {
    match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => TlsFiles::new(cert, key),
        _ => TlsFiles::in_directory(&args.place.data.join("tls")),
    }
}

/// Makes a directory for its owner only, and those above it.
pub(super) fn make_private_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| format!("could not make {}", path.display()))
}
