//! The Console in the browser: forms in, use cases, pages out. HTML is made here, works without script, and asks no other host for
//! anything. Nothing here decides about rights: that is for `ops`, and for Racks for `reach`.
//!
//! - [`guard`]: what every answer carries, and what is refused before a handler sees it
//! - [`person`]: who is signed in, by the cookie alone
//! - [`page`]: what all pages share, and how they are answered
//! - the rest: a file for each group of pages, with its templates in `templates/`

mod account;
mod activity;
mod apps;
mod assets;
mod authorize;
mod challenge;
mod device;
mod factors;
mod guard;
mod install;
mod invitation;
mod keys;
mod let_in;
mod organizations;
mod page;
mod person;
mod prove;
mod rack;
mod rack_add;
mod racks;
mod setup;
mod sign;
mod stream;
mod words;

pub(crate) use person::device;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::get;

use crate::state::App;

/// Where the pages live: no Rack has a route below it.
pub(crate) const HOME: &str = "/console";

/// All pages.
pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    Router::new()
        .route(HOME, get(async || Redirect::to("/console/racks")))
        .nest(
            HOME,
            Router::new()
                .merge(setup::routes())
                .merge(sign::routes())
                .merge(account::routes())
                .merge(factors::routes())
                .merge(prove::routes())
                .merge(authorize::routes())
                .merge(device::routes())
                .merge(let_in::routes())
                .merge(racks::routes())
                .merge(rack_add::routes())
                .merge(rack::routes())
                .merge(install::routes())
                .merge(apps::routes())
                .merge(organizations::routes())
                .merge(invitation::routes())
                .merge(keys::routes())
                .merge(activity::routes())
                .merge(assets::routes())
                .fallback(page::not_found),
        )
        .merge(challenge::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(app), guard::around))
}
