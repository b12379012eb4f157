//! `resources ...`

use convox_wire::options::ResourceConsoleOptions;

use super::builds::{passed_on, saved, size, stream_of};
use super::{exec, proxy};
use crate::Ctx;
use crate::args::{Resources, ResourcesCommand};
use crate::error::Failure;
use crate::progress::Progress;
use crate::reach::Reached;
use crate::table::{Info, Table};
use crate::term;

pub(super) async fn run(ctx: &Ctx, args: Resources) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => ctx.watched(args.watch, async || list(ctx, &rack, &app).await).await?,
        Some(ResourcesCommand::Console { resource }) => return console(ctx, &rack, &app, &resource).await,
        Some(ResourcesCommand::Export { resource, file }) => export(ctx, &rack, &app, &resource, file.as_deref()).await?,
        Some(ResourcesCommand::Import { resource, file }) => import(ctx, &rack, &app, &resource, file.as_deref()).await?,
        Some(ResourcesCommand::Info { resource }) => info(ctx, &rack, &app, &resource).await?,
        Some(ResourcesCommand::Url { resource }) => {
            let resource = rack.client.resource(&app, &resource).await?;
            let url = url(&resource)?;
            if ctx.out.is_json() { ctx.out.json(&resource)? } else { ctx.out.line(url)? }
        }
        Some(ResourcesCommand::Proxy { resource, port, tls }) => {
            let resource = rack.client.resource(&app, &resource).await?;
            let (host, host_port) = address(url(&resource)?)?;
            let way = proxy::Way { port: port.unwrap_or(host_port), host, host_port };
            return proxy::serve(ctx, rack.client, vec![way], tls).await;
        }
    }
    Ok(0)
}

async fn list(ctx: &Ctx, rack: &Reached, app: &str) -> Result<(), Failure> {
    let resources = rack.client.resources(app).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&resources);
    }
    let mut table = Table::new(&["NAME", "TYPE", "URL"]);
    for resource in &resources {
        table.row([&resource.name, &resource.r#type, &resource.url]);
    }
    ctx.out.table(&table)
}

async fn info(ctx: &Ctx, rack: &Reached, app: &str, resource: &str) -> Result<(), Failure> {
    let resource = rack.client.resource(app, resource).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&resource);
    }
    let mut info = Info::new();
    info.add("Name", &resource.name).add("Type", &resource.r#type);
    if !resource.url.is_empty() {
        info.add("URL", &resource.url);
    }
    ctx.out.info(&info)
}

fn url(resource: &convox_wire::api::Resource) -> Result<&str, Failure> {
    if resource.url.is_empty() { Err(Failure::new(format!("no url for resource: {}", resource.name))) } else { Ok(&resource.url) }
}

/// Host and port of a URL, whatever its password holds. The URL itself is a secret and stands in no message.
fn address(url: &str) -> Result<(String, u16), Failure> {
    let (scheme, rest) = url.split_once("://").ok_or_else(|| Failure::new("the resource's url has no scheme"))?;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let usual = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()),
        _ => (authority, usual),
    };
    let port = port.ok_or_else(|| Failure::new(format!("unknown port for a {scheme} url of {host}")))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

async fn console(ctx: &Ctx, rack: &Reached, app: &str, resource: &str) -> Result<u8, Failure> {
    let size = term::size(&ctx.env);
    let options =
        ResourceConsoleOptions { height: size.map(|(rows, _)| i64::from(rows)), width: size.map(|(_, columns)| i64::from(columns)) };
    let socket = rack.client.resource_console(app, resource, &options).await?;
    exec::attach_without_code(ctx, socket).await
}

async fn export(ctx: &Ctx, rack: &Reached, app: &str, resource: &str, file: Option<&str>) -> Result<(), Failure> {
    if file.is_none() && ctx.env.stdout_is_terminal {
        return Err(Failure::new("pipe this command into a file or specify --file"));
    }
    let out = ctx.out;
    let Some(path) = file else {
        out.talk("Exporting resource data...");
        return passed_on(&out, rack.client.resource_export(app, resource).await?, "Exporting resource data").await;
    };
    out.start("Exporting resource data")?;
    saved(&out, rack.client.resource_export(app, resource).await?, path, "Exporting resource data").await?;
    out.ok()?;
    out.result(resource, &serde_json::json!({"app": app, "resource": resource, "file": path}))
}

async fn import(ctx: &Ctx, rack: &Reached, app: &str, resource: &str, file: Option<&str>) -> Result<(), Failure> {
    let body = match file {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| Failure::new(format!("could not read {path}: {error}")))?;
            let total = size(&file);
            stream_of(file, Progress::of(&ctx.out, "Importing resource data", total))
        }
        None if ctx.env.stdin_is_terminal => return Err(Failure::new("pipe a file into this command or specify --file")),
        None => stream_of(std::io::stdin(), Progress::of(&ctx.out, "Importing resource data", None)),
    };
    // Asked first, so that a key or a session is refused before the data has travelled.
    rack.client.resource(app, resource).await?;
    ctx.announce(rack);
    ctx.out.start("Importing resource data")?;
    rack.client.resource_import(app, resource, body).await?;
    ctx.out.ok()?;
    ctx.out.result(resource, &serde_json::json!({"app": app, "resource": resource, "imported": true}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urls_address_is_found_whatever_the_password_holds() {
        for (url, host, port) in [
            ("postgres://app:p@ss/w:rd@10.0.0.5:5432/app?sslmode=disable", "10.0.0.5", 5432),
            ("redis://cache.internal:6379/0", "cache.internal", 6379),
            ("https://search.internal/index", "search.internal", 443),
            ("http://[fd00::1]:8080/", "fd00::1", 8080),
            ("http://[fd00::1]/", "fd00::1", 80),
        ] {
            assert_eq!(address(url).unwrap(), (host.to_owned(), port), "{url}");
        }
        let refused = address("postgres://app:hunter2@db.internal/app").unwrap_err().to_string();
        assert!(refused.contains("db.internal") && !refused.contains("hunter2"), "{refused}");
    }
}
