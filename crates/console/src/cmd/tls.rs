//! `convox-console tls roll`: works on files alone; a running server notices.

use anyhow::{Context as _, Result};
use convox_proxy::TlsFiles;
use serde_json::json;

use super::output::Output;
use crate::args::Tls;

pub(crate) fn run(command: Tls) -> Result<()> {
    let Tls::Roll { data, tls_cert, tls_key, to_cert, to_key, json } = command;
    let files = match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => TlsFiles::new(cert, key),
        _ => TlsFiles::in_directory(&data.context("give --data, or --tls-cert and --tls-key")?.join("tls")),
    };
    let given = to_cert.zip(to_key).map(|(cert, key)| TlsFiles::new(cert, key));
    let rolled = files.roll(given.as_ref())?;
    let words = format!(
        "The certificate was {} and is {}.\nThe old key signed the new one: our clients that pinned the old one follow, and say so.",
        rolled.from, rolled.to
    );
    Output { json }.value(&json!({ "from": rolled.from.to_string(), "to": rolled.to.to_string() }), &words)
}
