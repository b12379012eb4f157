//! The address at which monitoring asks. Nothing secret is told there, and nothing that strangers need to know.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use convox_proxy::{Server, Tower};
use http::header::CONTENT_TYPE;
use tokio::sync::watch;

use super::text;
use crate::state::App;

/// Serves until another server has the socket, or the process ends; gives the address, whose port may have been picked.
pub(crate) fn start(app: &Arc<App>, server: Server, mut taken: watch::Receiver<bool>) -> SocketAddr {
    let bound = server.local_addr();
    let router = Router::new()
        .route("/metrics", get(async |State(app): State<Arc<App>>| ([(CONTENT_TYPE, text::CONTENT_TYPE)], text::all(&app))))
        .route("/health", get(async || convox_wire::readiness::ALIVE))
        .route("/ready", get(crate::readiness::ready))
        .with_state(Arc::clone(app));
    let taken = async move {
        if taken.wait_for(|is_taken| *is_taken).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::spawn(async move {
        if let Err(error) = server.run_local(Tower(router), taken).await {
            tracing::error!(%error, "metrics cannot be served");
        }
    });
    bound
}
