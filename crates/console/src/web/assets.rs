//! Style, script and icon, built into the binary. Their paths carry a hash of their content, so browsers may keep them for good.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::page;
use crate::state::App;

/// A file in the binary.
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
    path: LazyLock<String>,
}

impl Asset {
    /// Where a page finds it.
    pub(super) fn path(&'static self) -> &'static str {
        &self.path
    }
}

macro_rules! asset {
    ($file:literal, $kind:literal) => {
        Asset {
            name: $file,
            kind: $kind,
            content: include_bytes!(concat!("../../assets/", $file)),
            path: LazyLock::new(|| path($file, include_bytes!(concat!("../../assets/", $file)))),
        }
    };
}

pub(super) static STYLE: Asset = asset!("console.css", "text/css; charset=utf-8");
pub(super) static SCRIPT: Asset = asset!("console.js", "text/javascript; charset=utf-8");
pub(super) static PASSKEY: Asset = asset!("passkey.js", "text/javascript; charset=utf-8");
pub(super) static ICON: Asset = asset!("icon.svg", "image/svg+xml");
static ALL: [&Asset; 4] = [&STYLE, &SCRIPT, &PASSKEY, &ICON];

/// FNV-1a: a name for a version, nothing that anybody relies on.
fn path(name: &str, content: &[u8]) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("/console/assets/{hash:016x}/{name}")
}

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/assets/{hash}/{name}", get(asset))
}

impl Asset {
    fn answer(&self) -> Response {
        ([(CONTENT_TYPE, self.kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")], self.content).into_response()
    }
}

async fn asset(Path((_, name)): Path<(String, String)>) -> Response {
    match ALL.into_iter().find(|asset| asset.name == name) {
        Some(asset) => asset.answer(),
        None => page::error(StatusCode::NOT_FOUND, "there is no such file").into_response(),
    }
}
