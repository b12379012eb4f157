//! `apps export` and `apps import`: a gzip-compressed tar with `app.json`, `env`, `build.tgz` and, as v3 adds, `resources/NAME.tgz` (what
//! `resources export` gives, whatever the name says).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use convox_wire::api::App;
use convox_wire::options::{AppCreateOptions, AppUpdateOptions, ReleaseCreateOptions, ReleasePromoteOptions};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::builds::{saved, size, stream_of};
use super::wait;
use crate::Ctx;
use crate::error::Failure;
use crate::output::{Printer, Style};
use crate::progress::Progress;
use crate::reach::Reached;

/// Parameters that belong to one app on one Rack.
const OWN: [&str; 4] = ["Rack", "LogBucket", "ResourcePassword", "ParamPassword"];
/// Where the data of resources is in an export.
const RESOURCES: &str = "resources";
/// Longest `app.json` and `env`.
const LONGEST: u64 = 16 * 1024 * 1024;

fn cannot(doing: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("could not {doing}: {error}"))
}

pub(super) async fn export(ctx: &Ctx, rack: &Reached, app: &str, file: Option<&str>) -> Result<(), Failure> {
    if file.is_none() && ctx.env.stdout_is_terminal {
        return Err(Failure::new("pipe this command into a file or specify --file"));
    }
    // The archive has standard output to itself.
    let out = ctx.out.with_id(file.is_none());
    let dir = tempfile::tempdir().map_err(|error| cannot("make a temporary directory", &error))?;
    out.start(&format!("Exporting app {}", out.paint(Style::App, app)))?;
    let mut exported = rack.client.app(app).await?;
    exported.parameters.retain(|key, _| !OWN.contains(&key.as_str()));
    let json = serde_json::to_vec(&exported).map_err(|error| cannot("write the app down", &error))?;
    write(&dir.path().join("app.json"), &json)?;
    out.ok()?;
    if !exported.release.is_empty() {
        out.start("Exporting env")?;
        let release = rack.client.release(app, &exported.release).await?;
        write(&dir.path().join("env"), release.env.as_bytes())?;
        out.ok()?;
        if !release.build.is_empty() {
            out.start(&format!("Exporting build {}", out.paint(Style::Build, &release.build)))?;
            let path = dir.path().join("build.tgz");
            let label = format!("Exporting build {}", release.build);
            saved(&out, rack.client.build_export(app, &release.build).await?, &path.to_string_lossy(), &label).await?;
            out.ok()?;
        }
    }
    let left_out = export_resources(&out, rack, app, &dir.path().join(RESOURCES)).await?;
    out.start("Packaging export")?;
    match file {
        // Whole or not at all: half an export must not look like one.
        Some(path) => {
            let target = Path::new(path);
            let parent = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let written = tempfile::NamedTempFile::new_in(parent).and_then(|part| {
                pack(dir.path(), part.as_file())?;
                part.persist(target).map(drop).map_err(|error| error.error)
            });
            written.map_err(|error| cannot(&format!("write {path}"), &error))?;
        }
        None => pack(dir.path(), io::stdout())?,
    }
    out.ok()?;
    if ctx.out.is_json() && file.is_some() {
        ctx.out.json(&serde_json::json!({"app": app, "release": exported.release, "file": file, "left_out": left_out}))?;
    }
    Ok(())
}

/// The data of every resource, each in a file of its own; gives the names of those that cannot be carried.
async fn export_resources(out: &Printer, rack: &Reached, app: &str, dir: &Path) -> Result<Vec<String>, Failure> {
    let resources = match rack.client.resources(app).await {
        Ok(resources) => resources,
        // Racks without resources of apps have no such call.
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let mut left_out = Vec::new();
    for resource in resources {
        let name = resource.name;
        if !is_plain(&name) {
            return Err(Failure::new(format!("the resource's name cannot be that of a file: {name}")));
        }
        fs::create_dir_all(dir).map_err(|error| cannot("make a temporary directory", &error))?;
        let label = format!("Exporting resource {name}");
        out.start(&label)?;
        match rack.client.resource_export(app, &name).await {
            Ok(reply) => {
                saved(out, reply, &dir.join(format!("{name}.tgz")).to_string_lossy(), &label).await?;
                out.ok()?;
            }
            Err(error) if cannot_be_carried(&error) => {
                out.progress("left out\n")?;
                out.talk(&format!("NOTICE: the data of {name} is not in the export: {error}"));
                left_out.push(name);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(left_out)
}

/// Whether a Rack says that it cannot give (or take) the data of a resource, and not that something went wrong.
fn cannot_be_carried(error: &convox_client::Error) -> bool {
    error.is_not_found() || error.to_string().contains("not available")
}

/// A name that is one file, and no hidden one.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    fs::write(path, content).map_err(|error| cannot("write a temporary file", &error))
}

fn pack(dir: &Path, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::default()));
    for name in ["app.json", "env", "build.tgz"] {
        if dir.join(name).exists() {
            archive.append_path_with_name(dir.join(name), name)?;
        }
    }
    for name in resources_in(dir)? {
        let name = format!("{RESOURCES}/{name}.tgz");
        archive.append_path_with_name(dir.join(&name), &name)?;
    }
    archive.into_inner()?.finish()?.flush()
}

/// Names of the resources whose data is in `dir`, in order.
fn resources_in(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir.join(RESOURCES)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".tgz").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Takes the files that count out of the archive; whatever else it holds is not touched.
fn unpack(from: impl Read, dir: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(from));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
        let resource = name.strip_prefix("resources/").and_then(|name| name.strip_suffix(".tgz"));
        let is_resource = resource.is_some_and(is_plain);
        if entry.header().entry_type().is_file() && (is_resource || ["app.json", "env", "build.tgz"].contains(&name.as_str())) {
            let limit = if is_resource || name == "build.tgz" { u64::MAX } else { LONGEST };
            if is_resource {
                fs::create_dir_all(dir.join(RESOURCES))?;
            }
            io::copy(&mut (&mut entry).take(limit), &mut File::create(dir.join(name))?)?;
        }
    }
    Ok(())
}

pub(super) async fn import(ctx: &Ctx, rack: &Reached, app: &str, file: Option<&str>) -> Result<(), Failure> {
    let dir = tempfile::tempdir().map_err(|error| cannot("make a temporary directory", &error))?;
    let unpacked = match file {
        Some(path) => File::open(path).and_then(|file| unpack(file, dir.path())),
        None if ctx.env.stdin_is_terminal => return Err(Failure::new("pipe a file into this command or specify --file")),
        None => unpack(io::stdin().lock(), dir.path()),
    };
    let what = file.unwrap_or("standard input");
    unpacked.map_err(|error| cannot(&format!("read the export in {what}"), &error))?;
    let json = fs::read(dir.path().join("app.json"))
        .map_err(|_| Failure::new(format!("{what} is no export of an app: there is no app.json in it")))?;
    let mut exported: App = serde_json::from_slice(&json).map_err(|error| cannot("read app.json of the export", &error))?;
    exported.parameters.retain(|key, _| !OWN.contains(&key.as_str()));

    ctx.announce(rack);
    let out = ctx.out;
    out.start(&format!("Creating app {}", out.paint(Style::App, app)))?;
    let generation = (!exported.generation.is_empty()).then(|| exported.generation.clone());
    let made = rack.client.app_create(app, &AppCreateOptions { generation, ..AppCreateOptions::default() }).await?;
    if made.status != "running" {
        wait::app_running(&rack.client, app, false).await?;
    }
    out.ok()?;

    let mut release = String::new();
    if let Ok(build) = File::open(dir.path().join("build.tgz")) {
        out.start("Importing build")?;
        let total = size(&build);
        release = rack.client.build_import(app, stream_of(build, Progress::of(&out, "Importing build", total))).await?.release;
        out.ok_with(&out.paint(Style::Release, &release))?;
    }
    if let Ok(env) = fs::read_to_string(dir.path().join("env")) {
        out.start("Importing env")?;
        let options = ReleaseCreateOptions { env: Some(env), ..ReleaseCreateOptions::default() };
        release = rack.client.release_create(app, &options).await?.id;
        out.ok_with(&out.paint(Style::Release, &release))?;
    }
    if !release.is_empty() {
        out.start(&format!("Promoting {}", out.paint(Style::Release, &release)))?;
        rack.client.release_promote(app, &release, &ReleasePromoteOptions::default()).await?;
        wait::app_running(&rack.client, app, false).await?;
        out.ok()?;
    }
    let resources = resources_in(dir.path()).map_err(|error| cannot("read the unpacked export", &error))?;
    for name in &resources {
        import_resource(&out, rack, app, name, dir.path(), what).await?;
    }
    let now = rack.client.app(app).await?.parameters;
    let mut left_out = Vec::new();
    if exported.parameters.iter().any(|(key, value)| now.get(key) != Some(value)) {
        left_out = import_parameters(&out, rack, app, exported.parameters).await?;
    }
    let target = rack.target.describe();
    out.result(app, &serde_json::json!({"app": app, "release": release, "resources": resources, "left_out": left_out, "target": target}))
}

/// Gives an app its parameters; those that this Rack refuses are left out and named, since the app is there.
async fn import_parameters(
    out: &Printer,
    rack: &Reached,
    app: &str,
    parameters: std::collections::BTreeMap<String, String>,
) -> Result<Vec<String>, Failure> {
    let is_refused =
        |error: &convox_client::Error| matches!(error, convox_client::Error::Server { status, .. } if is_about_a_parameter(*status));
    let options = |parameters| AppUpdateOptions { parameters: Some(parameters), ..AppUpdateOptions::default() };
    out.start("Updating parameters")?;
    let mut notices = Vec::new();
    match rack.client.app_update(app, &options(parameters.clone())).await {
        Err(error) if is_refused(&error) => {
            for (name, value) in parameters {
                match rack.client.app_update(app, &options([(name.clone(), value.clone())].into())).await {
                    Err(error) if is_refused(&error) => notices.push((without_value(&error.to_string(), &name, &value), name)),
                    outcome => outcome?,
                }
            }
        }
        outcome => outcome?,
    }
    wait::app_running(&rack.client, app, false).await?;
    out.ok()?;
    for (why, name) in &notices {
        out.talk(&format!("NOTICE: parameter {name} was left out: {why}"));
    }
    Ok(notices.into_iter().map(|(_, name)| name).collect())
}

/// Whether an answer is a Rack's no to a parameter. Others (who asks is unknown or not allowed, the app is busy, too many requests) say
/// nothing about it, and end the import.
const fn is_about_a_parameter(status: u16) -> bool {
    matches!(status, 400 | 422)
}

/// What a Rack says about a parameter, without its value, which may be secret.
fn without_value(said: &str, name: &str, value: &str) -> String {
    said.replace(&format!("{name}={value}"), name)
}

async fn import_resource(out: &Printer, rack: &Reached, app: &str, name: &str, dir: &Path, what: &str) -> Result<(), Failure> {
    let label = format!("Importing resource {name}");
    let data = File::open(dir.join(format!("{RESOURCES}/{name}.tgz"))).map_err(|error| cannot("read the unpacked export", &error))?;
    out.start(&label)?;
    let total = size(&data);
    let sent = rack.client.resource_import(app, name, stream_of(data, Progress::of(out, &label, total))).await;
    sent.map_err(|error| {
        Failure::from(error).while_doing(&format!("the app is there, and the data of its resource {name} is not")).hint(format!(
            "take {RESOURCES}/{name}.tgz out of {what} with tar, and send it again: convox resources import {name} -a {app} -f {name}.tgz"
        ))
    })?;
    out.ok()
}

#[cfg(test)]
mod tests {
    use super::{is_about_a_parameter, without_value};

    #[test]
    fn only_a_no_to_a_parameter_leaves_it_out_and_its_value_is_not_told() {
        assert!([400, 422].into_iter().all(is_about_a_parameter));
        assert!(![401, 403, 404, 409, 429, 500, 507].into_iter().any(is_about_a_parameter));
        assert_eq!(without_value("Key=hunter2: give Yes or No", "Key", "hunter2"), "Key: give Yes or No");
    }
}
