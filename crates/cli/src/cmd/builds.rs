//! `build`, `builds ...`, `deploy`; and what `start` and `test` build.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use convox_client::{Body, Reply};
use convox_wire::api::Build;
use convox_wire::options::{BuildCreateOptions, BuildImportImageOptions, BuildUpdateOptions};
use tokio::sync::mpsc;

use super::logs;
use super::registries::piped;
use super::releases::{Made, promote};
use crate::Ctx;
use crate::ago::{ago, elapsed};
use crate::args::{self, BuildOptions, Builds, BuildsCommand, BuildsImport, Deploy, ImportImage};
use crate::error::Failure;
use crate::output::{Printer, Style};
use crate::progress::Progress;
use crate::reach::Reached;
use crate::source::package;
use crate::table::{Info, Table};

/// Read and sent in one piece.
const PIECE: usize = 64 * 1024;
/// How long a build may take to end after its log has.
const LIMIT: Duration = Duration::from_hours(2);

pub(super) async fn run(ctx: &Ctx, args: Builds) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    match args.command {
        None => ctx.watched(args.watch, async || list(ctx, &rack, &app, args.limit).await).await?,
        Some(BuildsCommand::Export { build, file }) => export(ctx, &rack, &app, &build, file.as_deref()).await?,
        Some(BuildsCommand::Import(import_args)) => import(ctx, &rack, &app, &import_args).await?,
        Some(BuildsCommand::ImportImage(image_args)) => import_image(ctx, &rack, &app, &image_args).await?,
        Some(BuildsCommand::Info { build }) => info(ctx, &rack.client.build(&app, &build).await?)?,
        Some(BuildsCommand::Logs { build }) => {
            let socket = rack.client.build_logs(&app, &build).await?;
            let (mut reader, _writer) = socket.split();
            while let Some(piece) = reader.next().await? {
                ctx.out.raw(&piece.data)?;
            }
        }
    }
    Ok(0)
}

async fn list(ctx: &Ctx, rack: &Reached, app: &str, limit: Option<i64>) -> Result<(), Failure> {
    let builds = rack.client.builds(app, limit).await?;
    if ctx.out.is_json() {
        return ctx.out.json(&builds);
    }
    let mut table = Table::new(&["ID", "STATUS", "RELEASE", "STARTED", "ELAPSED", "DESCRIPTION"]);
    for build in &builds {
        table.row([
            &build.id,
            &build.status,
            &build.release,
            &ago(build.started),
            &elapsed(build.started, build.ended),
            &build.description,
        ]);
    }
    ctx.out.table(&table)
}

fn info(ctx: &Ctx, build: &Build) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(build);
    }
    let mut info = Info::new();
    info.add("Id", &build.id).add("Status", &build.status).add("Release", &build.release).add("Description", &build.description);
    info.add("Started", ago(build.started)).add("Elapsed", elapsed(build.started, build.ended));
    ctx.out.info(&info)
}

pub(super) async fn build(ctx: &Ctx, args: args::Build) -> Result<u8, Failure> {
    refuse_external(args.options.external)?;
    let app = ctx.app(&args.options.app)?;
    let out = ctx.out.with_id(args.options.id.id);
    let rack = ctx.rack(&args.options.rack).await?;
    let build = make(&out, &rack, &app, &args.options, args.development).await?;
    out.progress(&format!("Build:   {}\n", out.paint(Style::Build, &build.id)))?;
    out.progress(&format!("Release: {}\n", out.paint(Style::Release, &build.release)))?;
    let made = Made { app: &app, build: Some(&build.id), release: &build.release, promoted: false, target: rack.target.describe() };
    out.result(&build.release, &made)?;
    Ok(0)
}

pub(super) async fn deploy(ctx: &Ctx, args: Deploy) -> Result<u8, Failure> {
    refuse_external(args.options.external)?;
    let app = ctx.app(&args.options.app)?;
    let out = ctx.out.with_id(args.options.id.id);
    let rack = ctx.rack(&args.options.rack).await?;
    // A deploy to the wrong Rack is the mistake that people regret most.
    out.talk(&format!("Deploying {app} to {}", rack.target.describe()));
    let build = make(&out, &rack, &app, &args.options, args.development).await?;
    promote(&out, &rack, &app, &build.release, args.force, args.wait.wait).await?;
    let made = Made { app: &app, build: Some(&build.id), release: &build.release, promoted: true, target: rack.target.describe() };
    out.result(&build.release, &made)?;
    Ok(0)
}

/// Before anything is asked or made.
pub(super) fn refuse_external(external: bool) -> Result<(), Failure> {
    if external {
        return Err(Failure::new(
            "--external builds with the Docker of this machine and pushes to a registry of the Rack; this convox does not",
        )
        .hint("leave it out: the Rack builds; or push the image yourself: convox builds import-image IMAGE"));
    }
    Ok(())
}

/// Packages, uploads, builds, and shows the log; gives the finished build.
pub(super) async fn make(out: &Printer, rack: &Reached, app: &str, args: &BuildOptions, development: bool) -> Result<Build, Failure> {
    let dir = args.dir.as_deref().filter(|dir| !dir.is_empty()).unwrap_or(".");
    // A comma would tear an argument in two on the wire (the list has no escapes).
    if let Some(bad) = args.build_args.iter().find(|arg| arg.contains(',')) {
        return Err(Failure::new(format!("a build argument cannot hold a comma: {bad}")));
    }
    let options = BuildCreateOptions {
        build_args: (!args.build_args.is_empty()).then(|| args.build_args.clone()),
        description: args.description.clone().or_else(|| described(Path::new(dir))),
        development: development.then_some(true),
        git_sha: git(Path::new(dir), &["rev-parse", "HEAD"]),
        manifest: args.manifest.clone(),
        no_cache: args.no_cache.then_some(true),
        wildcard_domain: args.wildcard_domain.then_some(true),
        ..BuildCreateOptions::default()
    };
    // Asked first, so that a key or a session is refused before the source has travelled.
    rack.client.app(app).await?;
    out.start("Packaging source")?;
    let packaged = package(Path::new(dir), Progress::of(out, "Packaging source", None))?;
    out.ok()?;
    out.start("Uploading source")?;
    let key = format!("{}.tgz", upload_key()?);
    let object = rack
        .client
        .object_store(app, &["tmp", &key], stream_of(packaged.file, Progress::of(out, "Uploading source", Some(packaged.length))))
        .await?;
    out.ok()?;
    out.start("Starting build")?;
    let build = rack.client.build_create(app, &object.url, &options).await?;
    out.ok()?;
    followed(out, rack, app, &build.id).await
}

/// Shows the log to its end, then waits for the build's own verdict.
async fn followed(out: &Printer, rack: &Reached, app: &str, id: &str) -> Result<Build, Failure> {
    let shown = match rack.client.build_logs(app, id).await {
        Ok(socket) => logs::copy(out, socket).await.unwrap_or(0),
        Err(_) => 0,
    };
    let build = ended(rack, app, id).await?;
    // What came after the log was read, or while its connection was cut.
    let _ = rest_of_log(out, rack, app, id, shown).await;
    successful(build)
}

/// The build once it has ended, well or not.
async fn ended(rack: &Reached, app: &str, id: &str) -> Result<Build, Failure> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(100);
    loop {
        let build = rack.client.build(app, id).await?;
        if !is_under_way(&build) {
            return Ok(build);
        }
        if start.elapsed() > LIMIT {
            return Err(Failure::new(format!("build {id} has not ended")).hint(format!("convox builds info {id} -a {app}")));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

fn is_under_way(build: &Build) -> bool {
    matches!(build.status.as_str(), "running" | "created")
}

fn successful(build: Build) -> Result<Build, Failure> {
    if build.status == "failed" {
        let reason = if build.reason.is_empty() { String::new() } else { format!(": {}", build.reason) };
        return Err(Failure::new(format!("build failed{reason}")).hint(format!("convox builds logs {} -a {}", build.id, build.app)));
    }
    Ok(build)
}

async fn rest_of_log(out: &Printer, rack: &Reached, app: &str, id: &str, shown: u64) -> Result<(), Failure> {
    let reading = async {
        let (mut reader, _writer) = rack.client.build_logs(app, id).await?.split();
        let mut skip = shown;
        while let Some(piece) = reader.next().await? {
            let from = skip.min(piece.data.len() as u64);
            skip -= from;
            out.progress_raw(piece.data.get(from as usize..).unwrap_or_default())?;
        }
        Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap_or(Ok(()))
}

/// `build SHORT SUBJECT`, for a clean working tree.
fn described(dir: &Path) -> Option<String> {
    let clean =
        Command::new("git").arg("-C").arg(dir).args(["diff", "--quiet"]).stdin(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    if !clean.success() {
        return None;
    }
    git(dir, &["log", "-n", "1", "--pretty=%h %s", "--abbrev=10"]).map(|log| format!("build {log}"))
}

fn git(dir: &Path, words: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(dir).args(words).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// 30 hex digits that nobody can guess.
fn upload_key() -> Result<String, Failure> {
    let mut random = [0u8; 15];
    getrandom::fill(&mut random).map_err(|error| Failure::new(format!("no random numbers from the system: {error}")))?;
    let digits: Vec<String> = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits.concat())
}

/// Reads in a thread of its own, a few pieces ahead of the network.
pub(super) fn stream_of(mut source: impl Read + Send + 'static, mut progress: Progress) -> Body {
    let (send, receive) = mpsc::channel::<std::io::Result<Bytes>>(4);
    std::thread::spawn(move || {
        let mut buffer = vec![0u8; PIECE];
        loop {
            let piece = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => Ok(Bytes::copy_from_slice(buffer.get(..count).unwrap_or_default())),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            progress.add(piece.as_ref().map_or(0, Bytes::len));
            let is_last = piece.is_err();
            if send.blocking_send(piece).is_err() || is_last {
                break;
            }
        }
        // Before the channel closes and the end is answered: what follows is written after it.
        drop(progress);
        drop(send);
    });
    Body::stream(futures_util::stream::unfold(receive, |mut receive| async move { receive.recv().await.map(|piece| (piece, receive)) }))
}

/// How long an answer's body is, if it says so.
pub(super) fn length(reply: &Reply) -> Option<u64> {
    reply.header("content-length")?.parse().ok()
}

/// How long a file is.
pub(super) fn size(file: &std::fs::File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.len())
}

/// A body to standard output.
pub(super) async fn passed_on(out: &Printer, mut reply: Reply, label: &str) -> Result<(), Failure> {
    let mut progress = Progress::alone(label, length(&reply));
    while let Some(piece) = reply.chunk().await? {
        out.raw(&piece)?;
        progress.add(piece.len());
    }
    Ok(())
}

async fn export(ctx: &Ctx, rack: &Reached, app: &str, build: &str, file: Option<&str>) -> Result<(), Failure> {
    let out = ctx.out;
    let Some(path) = file else {
        if ctx.env.stdout_is_terminal {
            return Err(Failure::new("pipe this command into a file or specify --file"));
        }
        // The archive has standard output to itself.
        out.talk("Exporting build...");
        return passed_on(&out, rack.client.build_export(app, build).await?, "Exporting build").await;
    };
    out.start("Exporting build")?;
    saved(&out, rack.client.build_export(app, build).await?, path, "Exporting build").await?;
    out.ok()?;
    out.result(build, &serde_json::json!({"app": app, "build": build, "file": path}))
}

/// Writes a body to `path`, whole or not at all: a cut download must not look like an archive.
pub(super) async fn saved(out: &Printer, mut reply: Reply, path: &str, label: &str) -> Result<(), Failure> {
    let cannot = |error: &std::io::Error| Failure::new(format!("could not write {path}: {error}"));
    let target = Path::new(path);
    let dir = target.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut part = tempfile::NamedTempFile::new_in(dir).map_err(|error| cannot(&error))?;
    let mut progress = Progress::of(out, label, length(&reply));
    while let Some(piece) = reply.chunk().await? {
        part.write_all(&piece).map_err(|error| cannot(&error))?;
        progress.add(piece.len());
    }
    drop(progress);
    part.persist(target).map(drop).map_err(|error| cannot(&error.error))
}

/// An image from elsewhere as a build: the Rack fetches it with credentials that are used once.
async fn import_image(ctx: &Ctx, rack: &Reached, app: &str, args: &ImportImage) -> Result<(), Failure> {
    let path = args.manifest.as_deref().filter(|path| !path.is_empty()).unwrap_or("convox.yml");
    let manifest =
        std::fs::read_to_string(path).map_err(|error| Failure::new(format!("could not read {path}: {error}")).hint("--manifest FILE"))?;
    let src_creds_pass = match (&args.src_creds_pass, &args.src_creds_pass_env) {
        _ if args.src_creds_pass_stdin => Some(piped()?),
        (_, Some(name)) => Some(ctx.env.var(name).ok_or_else(|| Failure::new(format!("environment variable {name} is not set")))?),
        (given, None) => given.clone(),
    };
    let out = ctx.out;
    out.start("Creating build")?;
    let build = rack.client.build_create(app, "", &BuildCreateOptions { external: Some(true), ..BuildCreateOptions::default() }).await?;
    rack.client.build_update(app, &build.id, &BuildUpdateOptions { manifest: Some(manifest), ..BuildUpdateOptions::default() }).await?;
    out.ok_with(&out.paint(Style::Build, &build.id))?;
    out.start(&format!("Relaying image {}", args.image))?;
    let options = BuildImportImageOptions { src_creds_user: args.src_creds_user.clone(), src_creds_pass };
    rack.client.build_import_image(app, &build.id, &args.image, &options).await?;
    out.ok()?;
    out.start("Waiting for import to complete")?;
    let build = successful(ended(rack, app, &build.id).await?)?;
    out.ok_with(&out.paint(Style::Release, &build.release))?;
    let made = Made { app, build: Some(&build.id), release: &build.release, promoted: false, target: rack.target.describe() };
    out.result(&build.release, &made)
}

async fn import(ctx: &Ctx, rack: &Reached, app: &str, args: &BuildsImport) -> Result<(), Failure> {
    let out = ctx.out.with_id(args.id.id);
    let body = match &args.file {
        Some(path) => {
            let file = std::fs::File::open(path).map_err(|error| Failure::new(format!("could not read {path}: {error}")))?;
            let total = size(&file);
            stream_of(file, Progress::of(&out, "Importing build", total))
        }
        None if ctx.env.stdin_is_terminal => return Err(Failure::new("pipe a file into this command or specify --file")),
        None => stream_of(std::io::stdin(), Progress::of(&out, "Importing build", None)),
    };
    // Asked first, so that a key or a session is refused before the archive has travelled.
    rack.client.app(app).await?;
    out.start("Importing build")?;
    let mut build = rack.client.build_import(app, body).await?;
    // Originals answer when the release is there; a Rack may also answer at once and go on.
    if build.release.is_empty() && is_under_way(&build) {
        build = ended(rack, app, &build.id).await?;
    }
    let build = successful(build)?;
    out.ok_with(&build.release)?;
    let made = Made { app, build: Some(&build.id), release: &build.release, promoted: false, target: rack.target.describe() };
    out.result(&build.release, &made)
}
