//! The address at which monitoring asks. Nothing secret is told there, and nothing that strangers need to know.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use convox_proxy::{Server, Tower};
use http::header::CONTENT_TYPE;

use super::text;
use crate::state::App;

/// Serves until the process ends; gives the address, whose port may have been picked.
pub(crate) fn start(app: &Arc<App>, server: Server) -> SocketAddr {
    let bound = server.local_addr();
    let router = Router::new()
        .route("/metrics", get(async |State(app): State<Arc<App>>| ([(CONTENT_TYPE, text::CONTENT_TYPE)], text::all(&app))))
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(crate::readiness::ready))
        .with_state(Arc::clone(app));
    tokio::spawn(async move {
        if let Err(error) = server.run_local(Tower(router), std::future::pending()).await {
            tracing::error!(%error, "metrics cannot be served");
        }
    });
    bound
}
