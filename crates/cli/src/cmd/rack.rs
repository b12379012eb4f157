//! `rack ...`, except for installing (see `local`).

use std::collections::BTreeMap;

use convox_wire::api::System;
use convox_wire::options::{RuntimeAttachOptions, SystemUpdateOptions};

use super::{local, logs, mv, pairs, rack_keys, wait};
use crate::Ctx;
use crate::ago::ago;
use crate::args::{Access, Rack, RackCommand, RackFlag, RackParamsCommand, RackScale, RuntimeCommand};
use crate::error::Failure;
use crate::output::Style;
use crate::param_groups;
use crate::reach::Reached;
use crate::table::{Info, Table};

pub(super) async fn run(ctx: &Ctx, args: Rack) -> Result<u8, Failure> {
    let flag = &args.rack;
    match args.command {
        None => {
            let rack = ctx.rack(flag).await?;
            ctx.watched(args.watch, async || show(ctx, &rack).await).await?;
        }
        Some(RackCommand::Access(access_args)) => access(ctx, flag, &access_args).await?,
        Some(RackCommand::Install(install)) => local::install(ctx, &install).await?,
        Some(RackCommand::Uninstall(uninstall)) => local::uninstall(ctx, &uninstall).await?,
        Some(RackCommand::Logs(flags)) => {
            let rack = ctx.rack(flag).await?;
            let socket = rack.client.system_logs(&logs::options(&flags)).await?;
            logs::show(&ctx.out, socket).await?;
        }
        Some(RackCommand::Mv { from, to, force }) => mv::run(ctx, &from, &to, force).await?,
        Some(RackCommand::Params { group, reveal, command: None }) => params(ctx, flag, group.as_deref(), reveal).await?,
        Some(RackCommand::Params { command: Some(RackParamsCommand::Set { params, force, wait }), .. }) => {
            params_set(ctx, &ctx.rack(flag).await?, &params, force, wait.wait).await?;
        }
        Some(RackCommand::Password(command)) => rack_keys::password(ctx, flag, &command).await?,
        Some(RackCommand::Ps { all }) => processes(ctx, &ctx.rack(flag).await?, all).await?,
        Some(RackCommand::Releases) => releases(ctx, &ctx.rack(flag).await?).await?,
        Some(RackCommand::Runtimes) => runtimes(ctx, &ctx.rack(flag).await?).await?,
        Some(RackCommand::Runtime(RuntimeCommand::Attach { runtime })) => {
            let rack = ctx.rack(flag).await?;
            let options = RuntimeAttachOptions { runtime: Some(runtime.clone()) };
            rack.client.rack_runtime_attach(behind_console(&rack)?, &options).await?;
            ctx.out.ok()?;
            ctx.out.result(&runtime, &serde_json::json!({"runtime": runtime, "attached": true}))?;
        }
        Some(RackCommand::Scale(scale_args)) => scale(ctx, &ctx.rack(flag).await?, &scale_args).await?,
        Some(RackCommand::Sync { name: Some(_) }) => {
            return Err(Failure::new("--name asks AWS for a stack's address")
                .hint("use the original convox for it, or say the address to the Console"));
        }
        Some(RackCommand::Sync { name: None }) => {
            let rack = ctx.rack(flag).await?;
            let name = behind_console(&rack)?;
            ctx.out.start("Synchronizing rack API URL...")?;
            ctx.out.progress("\n")?;
            rack.client.rack_sync(name).await?;
            ctx.out.ok()?;
            ctx.out.result(name, &serde_json::json!({"rack": name, "synchronized": true}))?;
        }
        Some(RackCommand::Update { version, force, wait }) => update(ctx, flag, version.as_deref(), force, wait.wait).await?,
        Some(RackCommand::Wait) => {
            let rack = ctx.rack(flag).await?;
            ctx.out.start("Waiting for rack")?;
            ctx.out.progress("\n")?;
            wait::rack_with_logs(&rack.client, &ctx.out).await?;
            ctx.out.ok()?;
            if ctx.out.is_json() {
                ctx.out.json(&rack.client.system().await?)?;
            }
        }
    }
    Ok(0)
}

async fn show(ctx: &Ctx, rack: &Reached) -> Result<(), Failure> {
    let system = rack.client.system().await?;
    // Where two sources name a Rack, say which one won.
    if let (Some(won), false) = (&rack.target.rack, rack.target.overruled.is_empty()) {
        let lost: Vec<String> = rack.target.overruled.iter().map(|other| format!("{} ({})", other.value, other.source)).collect();
        ctx.out.talk(&format!("note: {} from {} is used, not {}", won.value, won.source, lost.join(", ")));
    }
    if ctx.out.is_json() {
        return ctx.out.json(&system);
    }
    let mut info = Info::new();
    info.add("Name", &system.name).add("Provider", &system.provider);
    let output = |key: &str| system.outputs.get(key).filter(|value| !value.is_empty());
    if !system.region.is_empty() {
        info.add("Region", &system.region);
    }
    if !system.domain.is_empty() {
        match output("DomainInternal") {
            Some(internal) => info.add("Router", format!("{} (external)\n{internal} (internal)", system.domain)),
            None => info.add("Router", &system.domain),
        };
    }
    if !system.router_internal.is_empty() {
        info.add("RouterInternal", &system.router_internal);
    }
    if let Some(host) = output("NLBHost") {
        let addresses: Vec<&str> =
            ["NLBEIP0", "NLBEIP1", "NLBEIP2"].into_iter().filter_map(|key| output(key).map(String::as_str)).collect();
        info.add("NLB", if addresses.is_empty() { host.clone() } else { format!("{host} ({})", addresses.join(", ")) });
    }
    if let Some(host) = output("NLBInternalHost") {
        info.add("NLB Internal", host);
    }
    info.add("Status", &system.status).add("Version", &system.version);
    ctx.out.info(&info)
}

/// The full name under which a Console knows the Rack.
fn behind_console(rack: &Reached) -> Result<&str, Failure> {
    rack.client.rack().ok_or_else(|| {
        Failure::new(format!("{} is spoken to directly; this is a question for a Console", rack.target.describe()))
            .hint("convox login CONSOLE, then convox switch ORG/RACK")
    })
}

async fn runtimes(ctx: &Ctx, rack: &Reached) -> Result<(), Failure> {
    let runtimes = rack.client.rack_runtimes(behind_console(rack)?).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&runtimes);
    }
    let mut table = Table::new(&["ID", "TITLE"]);
    for runtime in &runtimes {
        table.row([&runtime.id, &runtime.title]);
    }
    ctx.out.table(&table)
}

async fn access(ctx: &Ctx, flag: &RackFlag, args: &Access) -> Result<(), Failure> {
    if let Some(command) = &args.command {
        return rack_keys::access(ctx, flag, command).await;
    }
    let role = args
        .role
        .as_deref()
        .filter(|role| !role.is_empty())
        .ok_or_else(|| Failure::new("role is required").hint("--role read, or --role write"))?;
    let hours = args
        .duration_in_hours
        .filter(|hours| *hours > 0)
        .ok_or_else(|| Failure::new("duration is required").hint("--duration-in-hours 1"))?;
    let rack = ctx.rack(flag).await?;
    let system = rack.client.system().await?;
    let token = rack.client.access_token(role, hours).await?;
    // v2 servers answer an unknown role with an empty token.
    if token.is_empty() {
        return Err(Failure::new(format!("the rack gave no credential for the role {role}")).hint("--role read, or --role write"));
    }
    let url = format!("https://jwt:{token}@{}", system.rack_domain);
    if ctx.out.is_json() {
        return ctx.out.json(&serde_json::json!({"rack_url": url, "role": role, "duration_in_hours": hours}));
    }
    ctx.out.line(&format!("RACK_URL={url}"))
}

async fn params(ctx: &Ctx, flag: &RackFlag, group: Option<&str>, reveal: bool) -> Result<(), Failure> {
    let group = group.filter(|group| !group.is_empty()).map(param_groups::find).transpose()?;
    let rack = ctx.rack(flag).await?;
    let mut parameters = rack.client.system().await?.parameters;
    if let Some(group) = group {
        parameters.retain(|key, _| group.members.contains(&key.as_str()));
    }
    if ctx.out.is_json() {
        return ctx.out.json(&parameters);
    }
    let mut info = Info::new();
    for (key, value) in &parameters {
        let is_masked = param_groups::SECRET.contains(&key.as_str()) && !value.is_empty() && !reveal && ctx.env.stdout_is_terminal;
        info.add(key, if is_masked { "**********" } else { value });
    }
    ctx.out.info(&info)?;
    if let (Some(group), true) = (group, parameters.is_empty()) {
        ctx.out.talk(&format!("NOTICE: no params in group '{}' for this rack", group.name));
    }
    Ok(())
}

/// Parameters that cannot be right together, as v2 knows them.
fn check_params(parameters: &BTreeMap<String, String>) -> Result<(), Failure> {
    let is_set = |key: &str| parameters.get(key).is_some_and(|value| !value.is_empty());
    if parameters.contains_key("HighAvailability") {
        return Err(Failure::new("the HighAvailability parameter is only supported during rack installation"));
    }
    if is_set("ScheduleRackScaleDown") != is_set("ScheduleRackScaleUp") {
        return Err(Failure::new("to schedule the scaling of a rack, give both ScheduleRackScaleDown and ScheduleRackScaleUp"));
    }
    if parameters.get("LogDriver").is_some_and(|driver| driver == "Syslog") && !is_set("SyslogDestination") {
        return Err(Failure::new("LogDriver=Syslog needs SyslogDestination too"));
    }
    Ok(())
}

async fn params_set(ctx: &Ctx, rack: &Reached, words: &[String], force: bool, is_waited: bool) -> Result<(), Failure> {
    let parameters = pairs(words)?;
    if !force {
        check_params(&parameters)?;
    }
    let before: System = rack.client.system().await?;
    ctx.announce(rack);
    ctx.out.start("Updating parameters")?;
    let options = SystemUpdateOptions { parameters: Some(parameters.clone()), ..SystemUpdateOptions::default() };
    rack.client.system_update(&options).await?;
    let is_new = |key: &str| {
        parameters.get(key).is_some_and(|value| value == "Yes") && before.parameters.get(key).is_none_or(|value| value != "Yes")
    };
    if is_new("NLB") || is_new("NLBInternal") {
        ctx.out.progress("NLB provisioning typically takes 5-10 minutes; check status with 'convox rack'.\n")?;
    }
    if is_waited {
        ctx.out.progress("\n")?;
        wait::rack_with_logs(&rack.client, &ctx.out).await?;
    }
    ctx.out.ok()?;
    ctx.out.result("", &serde_json::json!({"parameters": parameters, "target": rack.target.describe()}))
}

async fn processes(ctx: &Ctx, rack: &Reached, all: bool) -> Result<(), Failure> {
    let processes = rack.client.system_processes(all).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&processes);
    }
    let mut table = Table::new(&["ID", "APP", "SERVICE", "STATUS", "RELEASE", "STARTED", "COMMAND"]);
    for process in &processes {
        table.row([&process.id, &process.app, &process.name, &process.status, &process.release, &ago(process.started), &process.command]);
    }
    ctx.out.table(&table)
}

async fn releases(ctx: &Ctx, rack: &Reached) -> Result<(), Failure> {
    let releases = rack.client.system_releases().await?;
    if ctx.out.is_json() {
        return ctx.out.json(&releases);
    }
    let mut table = Table::new(&["VERSION", "UPDATED"]);
    for release in &releases {
        table.row([&release.id, &ago(release.created)]);
    }
    ctx.out.table(&table)
}

async fn scale(ctx: &Ctx, rack: &Reached, args: &RackScale) -> Result<(), Failure> {
    if args.count.is_none() && args.kind.is_none() {
        let system = rack.client.system().await?;
        if ctx.out.is_json() {
            return ctx.out.json(&system);
        }
        let mut info = Info::new();
        info.add("Autoscale", system.parameters.get("Autoscale").map_or("", String::as_str));
        info.add("Count", system.count.to_string()).add("Status", &system.status).add("Type", &system.r#type);
        return ctx.out.info(&info);
    }
    ctx.announce(rack);
    ctx.out.start("Scaling rack")?;
    let options = SystemUpdateOptions { count: args.count, r#type: args.kind.clone(), ..SystemUpdateOptions::default() };
    rack.client.system_update(&options).await?;
    if args.wait.wait {
        ctx.out.progress("\n")?;
        wait::rack_with_logs(&rack.client, &ctx.out).await?;
    }
    ctx.out.ok()?;
    ctx.out.result("", &serde_json::json!({"count": args.count, "type": args.kind, "target": rack.target.describe()}))
}

async fn update(ctx: &Ctx, flag: &RackFlag, version: Option<&str>, force: bool, is_waited: bool) -> Result<(), Failure> {
    let version = version.filter(|version| !version.is_empty()).ok_or_else(|| {
        Failure::new("which version?").hint("name it: convox rack update VERSION (there is no list of versions to choose the next from)")
    })?;
    let rack = ctx.rack(flag).await?;
    ctx.announce(&rack);
    ctx.out.start(&format!("Updating to {}", ctx.out.paint(Style::Release, version)))?;
    let options = SystemUpdateOptions { version: Some(version.to_owned()), force: force.then_some(true), ..SystemUpdateOptions::default() };
    rack.client.system_update(&options).await?;
    if is_waited {
        ctx.out.progress("\n")?;
        wait::rack_with_logs(&rack.client, &ctx.out).await?;
    }
    ctx.out.ok()?;
    ctx.out.result(version, &serde_json::json!({"version": version, "target": rack.target.describe()}))
}
