//! Resources of apps: what they are, their consoles, and their data on the way out and in.

use std::sync::Arc;

use convox_proxy::Body;
use convox_wire::api::Resource;
use convox_wire::options::{Options as _, ResourceConsoleOptions, Source};
use tokio::io::AsyncReadExt as _;

use super::files::{checked, done, feed_between};
use super::socket::Wire;
use super::streams::{attach, terminal};
use super::{Answer, ApiError, Call, apps};
use crate::rack::Rack;
use crate::resources::{Session, complaint};
use crate::runtime::ExecStream;
use crate::scheduler::ResourceState;

/// How much of an export is held back until it is clear that it does not fail at once.
const EXPORT_HELD: usize = 16 * 1024;

fn shape(state: ResourceState) -> Resource {
    Resource { name: state.name, r#type: state.kind, status: state.status.to_owned(), url: state.url, ..Resource::default() }
}

pub(super) async fn list(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let app = apps::find(rack, call).await?;
    let resources: Vec<Resource> = rack.scheduler.resources(&app.name).into_iter().map(shape).collect();
    Ok(Answer::json(&resources))
}

async fn find(rack: &Rack, call: &Call) -> Result<(String, ResourceState), ApiError> {
    let app = apps::find(rack, call).await?;
    let name = call.var("name");
    let found = rack.scheduler.resources(&app.name).into_iter().find(|resource| resource.name == name);
    Ok((app.name, found.ok_or_else(|| ApiError::not_found("resource", name))?))
}

pub(super) async fn get(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let (_, resource) = find(rack, call).await?;
    Ok(Answer::json(&shape(resource)))
}

async fn session(rack: &Rack, call: &Call, what: Session) -> Result<ExecStream, ApiError> {
    let (app, resource) = find(rack, call).await?;
    Ok(rack.scheduler.resource_session(&app, &resource.name, what, None).await?)
}

/// All of its data as the statements that make it anew. Breaks off if it cannot be read to its end.
pub(super) async fn export(rack: &Rack, call: &Call) -> Result<Answer, ApiError> {
    let mut stream = session(rack, call, Session::Export).await?;
    // One that fails at once is refused with its reason; once more than this has gone out, the reason follows what there is, as a comment.
    let mut begun = Vec::new();
    while begun.len() < EXPORT_HELD {
        let count = stream.output.read_buf(&mut begun).await.map_err(|error| broken(&error.to_string()))?;
        if count > 0 {
            continue;
        }
        return match stream.exit.await {
            0 => Ok(Answer::Stream(Body::from(begun))),
            code => {
                let words = complaint(&String::from_utf8_lossy(&begun));
                Err(broken(&words.unwrap_or_else(|| format!("it ended with code {code}, without a word"))))
            }
        };
    }
    stream.output = Box::new(std::io::Cursor::new(begun).chain(stream.output));
    Ok(Answer::Stream(checked(stream, "the export")))
}

fn broken(reason: &str) -> ApiError {
    ApiError::bad(format!("nothing was exported: {reason}"))
}

/// Statements as the body, carried out all of them or none.
pub(super) async fn import(rack: &Rack, call: &mut Call) -> Result<Answer, ApiError> {
    let stream = session(rack, call, Session::Import).await?;
    // v3 clients name no content type; what calls itself a form was read as one and is gone.
    let body = call.take_body().ok_or_else(|| ApiError::bad("send the data as application/octet-stream, not as a form"))?;
    let ExecStream { input, output, exit } = stream;
    let (fed, ended) = tokio::join!(
        feed_between("BEGIN;\n", body, "\nCOMMIT;\n", input),
        done(ExecStream { input: Box::new(tokio::io::sink()), output, exit })
    );
    fed.and(ended).map_err(|reason| ApiError::bad(format!("nothing was imported: {reason}")))?;
    Ok(Answer::Ok)
}

/// A console on a terminal of the caller's size. Carries no exit code.
pub(super) async fn console(rack: &Arc<Rack>, app: &str, name: &str, source: &impl Source, wire: &mut Wire) -> Result<(), String> {
    let options = ResourceConsoleOptions::decode(source).map_err(|error| error.to_string())?;
    let known = rack.scheduler.resources(app).into_iter().any(|resource| resource.name == name);
    if !known {
        return Err(format!("resource not found: {name}"));
    }
    let size = terminal(options.height, options.width);
    let stream = rack.scheduler.resource_session(app, name, Session::Console, Some(size)).await.map_err(|error| error.to_string())?;
    attach(stream, wire).await;
    Ok(())
}
