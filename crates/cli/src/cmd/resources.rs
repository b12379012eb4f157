//! `resources ...`

use crate::Ctx;
use crate::args::{Resources, ResourcesCommand};
use crate::error::Failure;
use crate::table::{Info, Table};

pub(super) async fn run(ctx: &Ctx, args: Resources) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let (name, is_url) = match args.command {
        None => {
            let resources = rack.client.resources(&app).await?;
            if ctx.out.is_json() {
                ctx.out.json(&resources)?;
                return Ok(0);
            }
            let mut table = Table::new(&["NAME", "TYPE", "URL"]);
            for resource in &resources {
                table.row([&resource.name, &resource.r#type, &resource.url]);
            }
            ctx.out.table(&table)?;
            return Ok(0);
        }
        Some(ResourcesCommand::Info { resource }) => (resource, false),
        Some(ResourcesCommand::Url { resource }) => (resource, true),
    };
    let resource = rack.client.resource(&app, &name).await?;
    if is_url && resource.url.is_empty() {
        return Err(Failure::new(format!("no url for resource: {}", resource.name)));
    }
    if ctx.out.is_json() {
        ctx.out.json(&resource)?;
    } else if is_url {
        ctx.out.line(&resource.url)?;
    } else {
        let mut info = Info::new();
        info.add("Name", &resource.name).add("Type", &resource.r#type);
        if !resource.url.is_empty() {
            info.add("URL", &resource.url);
        }
        ctx.out.info(&info)?;
    }
    Ok(0)
}
