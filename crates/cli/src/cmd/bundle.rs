//! `apps export` and `apps import`: a gzip-compressed tar with `app.json`, `env` and `build.tgz`, as the originals pack it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use convox_wire::api::App;
use convox_wire::options::{AppCreateOptions, AppUpdateOptions, ReleaseCreateOptions, ReleasePromoteOptions};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::builds::{saved, stream_of};
use super::wait;
use crate::Ctx;
use crate::error::Failure;
use crate::output::Style;
use crate::reach::Reached;

/// Parameters that belong to one app on one Rack.
const OWN: [&str; 4] = ["Rack", "LogBucket", "ResourcePassword", "ParamPassword"];
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
            saved(rack.client.build_export(app, &release.build).await?, &path.to_string_lossy()).await?;
            out.ok()?;
        }
    }
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
        ctx.out.json(&serde_json::json!({"app": app, "release": exported.release, "file": file}))?;
    }
    Ok(())
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
    archive.into_inner()?.finish()?.flush()
}

/// Takes the three files that count out of the archive; whatever else it holds is not touched.
fn unpack(from: impl Read, dir: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(GzDecoder::new(from));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        let name = path.strip_prefix(".").unwrap_or(&path).to_string_lossy().into_owned();
        if entry.header().entry_type().is_file() && ["app.json", "env", "build.tgz"].contains(&name.as_str()) {
            let limit = if name == "build.tgz" { u64::MAX } else { LONGEST };
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
        release = rack.client.build_import(app, stream_of(build, None)).await?.release;
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
    let now = rack.client.app(app).await?.parameters;
    if exported.parameters.iter().any(|(key, value)| now.get(key) != Some(value)) {
        out.start("Updating parameters")?;
        let options = AppUpdateOptions { parameters: Some(exported.parameters), ..AppUpdateOptions::default() };
        rack.client.app_update(app, &options).await?;
        wait::app_running(&rack.client, app, false).await?;
        out.ok()?;
    }
    out.result(app, &serde_json::json!({"app": app, "release": release, "target": rack.target.describe()}))
}
