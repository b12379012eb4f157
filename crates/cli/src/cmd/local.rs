//! `rack install local` and `rack uninstall local`: a Rack of one's own on this machine, as a background process.
//!
//! Everything of it lives in `local/NAME/` of the configuration directory. Installing one that is there starts it again if
//! it does not run. Nobody who is logged in is moved.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use convox_tls::Fingerprint;
use convox_wire::ids::is_valid_rack_name;
use serde::Serialize;

use crate::Ctx;
use crate::accounts;
use crate::args::{Install, Uninstall};
use crate::error::Failure;
use crate::output::Style;
use crate::prompt;
use crate::settings::{Change, select};

/// How long a Rack may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD_LENGTH: usize = 43;

/// The files of one Rack.
struct Home {
    dir: PathBuf,
}

#[derive(Serialize)]
struct Installed<'a> {
    name: &'a str,
    host: &'a str,
    fingerprint: String,
    data: String,
    password_file: String,
    log: String,
}

impl Home {
    fn of(ctx: &Ctx, name: &str) -> Result<Self, Failure> {
        if !is_valid_rack_name(name) {
            return Err(
                Failure::new(format!("`{name}` is no name for a rack")).hint("small letters, digits and dashes, beginning with a letter")
            );
        }
        Ok(Self { dir: ctx.settings.path("local").join(name) })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.file(name)).ok().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Process id of the running Rack. A pid alone may by now belong to somebody else, so its start counts too.
    fn running(&self) -> Option<u32> {
        let text = self.text("pid")?;
        let (pid, start) = text.split_once(' ')?;
        let pid = pid.parse().ok()?;
        (started(pid).as_deref() == Some(start)).then_some(pid)
    }

    /// Address and fingerprint of the last start that became ready.
    fn ready(&self) -> Option<(String, Fingerprint)> {
        let text = self.text("out")?;
        let rest = text.lines().find_map(|line| line.strip_prefix("listening on https://"))?;
        let (host, fingerprint) = rest.split_once(" fingerprint ")?;
        Some((host.to_owned(), fingerprint.trim().parse().ok()?))
    }
}

/// Whether `host` is where the Rack `name` of this machine listens.
pub(super) fn stands_at(ctx: &Ctx, name: &str, host: &str) -> bool {
    Home::of(ctx, name).ok().and_then(|home| home.ready()).is_some_and(|(ready, _)| ready == host)
}

pub(super) async fn install(ctx: &Ctx, args: &Install) -> Result<(), Failure> {
    if args.kind != "local" {
        return Err(Failure::new(format!("unknown provider: {}", args.kind))
            .hint("convox rack install local; Racks elsewhere: start convox-rack there, then add them to a Console or log in to them"));
    }
    if let Some(word) = args.params.first() {
        return Err(
            Failure::new(format!("a local rack takes no parameters at installation: {word}")).hint("afterwards: convox rack params set")
        );
    }
    let home = Home::of(ctx, &args.name)?;
    let program = program()?;
    make_dir(&home.dir)?;
    let password = password(&home)?;
    ctx.out.start(&format!("Installing {}", ctx.out.paint(Style::Rack, &args.name)))?;
    let (host, fingerprint) = match (home.running(), home.ready()) {
        (Some(_), Some(ready)) => ready,
        _ => start(&home, &program, args).await?,
    };
    ctx.settings.change(|change| remember(change, &args.name, &host, &password, fingerprint))?;
    ctx.out.ok()?;
    ctx.out.progress(&format!("Host:    {host}\nData:    {}\n", home.file("data").display()))?;
    ctx.out.talk(&format!("try: convox switch {0}, or: convox apps -r {0}", args.name));
    let made = Installed {
        name: &args.name,
        host: &host,
        fingerprint: fingerprint.to_string(),
        data: home.file("data").display().to_string(),
        password_file: home.file("password").display().to_string(),
        log: home.file("log").display().to_string(),
    };
    ctx.out.result(&args.name, &made)
}

/// As the originals' `rack install`: key and name are saved, and the host only where nobody is logged in.
fn remember(change: &Change<'_>, name: &str, host: &str, password: &str, fingerprint: Fingerprint) -> Result<(), Failure> {
    change.set_key("auth", host, Some(password))?;
    change.set_key("pins", host, Some(&fingerprint.to_string()))?;
    change.set_key("self-managed", name, Some(host))?;
    let settings = change.settings();
    let active = settings.text("host")?;
    let active = if active.is_empty() { settings.text("console")? } else { active };
    if active.is_empty() || !accounts::is_logged_in(settings, &active)? {
        change.set_text("host", host)?;
        change.set_text("console", host)?;
    }
    Ok(())
}

/// The Rack's program: beside this one, or on `PATH`.
fn program() -> Result<PathBuf, Failure> {
    let name = if cfg!(windows) { "convox-rack.exe" } else { "convox-rack" };
    let beside = std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok()).and_then(|exe| Some(exe.parent()?.join(name)));
    let on_path =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).map(|dir| dir.join(name));
    beside
        .into_iter()
        .chain(on_path)
        .find(|path| path.is_file())
        .ok_or_else(|| Failure::new("the program convox-rack was not found").hint("put it beside convox, or on PATH"))
}

fn make_dir(dir: &Path) -> Result<(), Failure> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|error| Failure::new(format!("could not make {}: {error}", dir.display())))
}

/// Made once; a second installation finds it.
fn password(home: &Home) -> Result<String, Failure> {
    if let Some(password) = home.text("password") {
        return Ok(password);
    }
    let cannot = |error: io::Error| Failure::new(format!("could not write {}: {error}", home.file("password").display()));
    let password = random_text()?;
    let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(&home.dir).map_err(cannot)?;
    file.write_all(password.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(cannot)?;
    file.persist(home.file("password")).map_err(|error| cannot(error.error))?;
    Ok(password)
}

/// Letters and digits, which every client sends unchanged.
fn random_text() -> Result<String, Failure> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut text = String::new();
    while text.len() < PASSWORD_LENGTH {
        let mut bytes = [0u8; 64];
        getrandom::fill(&mut bytes).map_err(|error| Failure::new(format!("no random numbers from the system: {error}")))?;
        // 248 is the largest multiple of 62: what is above it would make some letters likelier.
        let letters = bytes.iter().filter(|byte| **byte < 248).filter_map(|byte| LETTERS.get(usize::from(byte % 62)));
        text.extend(letters.map(|letter| char::from(*letter)).take(PASSWORD_LENGTH - text.len()));
    }
    Ok(text)
}

async fn start(home: &Home, program: &Path, args: &Install) -> Result<(String, Fingerprint), Failure> {
    let cannot = |what: &Path, error: io::Error| Failure::new(format!("could not write {}: {error}", what.display()));
    // The same address as last time, so that everybody who knows it still reaches it.
    let listen = args.listen.clone().or_else(|| home.ready().map(|(host, _)| host)).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let out = File::create(home.file("out")).map_err(|error| cannot(&home.file("out"), error))?;
    let log = OpenOptions::new().create(true).append(true).open(home.file("log")).map_err(|error| cannot(&home.file("log"), error))?;
    let mut command = Command::new(program);
    command
        .args(["serve", "--listen", &listen, "--name", &args.name, "--data"])
        .arg(home.file("data"))
        .arg("--password-file")
        .arg(home.file("password"))
        .env_remove("CONVOX_PASSWORD")
        .env_remove("RACK_URL")
        .current_dir(&home.dir)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(log);
    // A Ctrl-C at this terminal is not meant for it.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| Failure::new(format!("could not start {}: {error}", program.display())))?;
    let pid = format!("{} {}", child.id(), started(child.id()).unwrap_or_default());
    fs::write(home.file("pid"), pid).map_err(|error| cannot(&home.file("pid"), error))?;
    until_ready(home, &mut child).await
}

async fn until_ready(home: &Home, child: &mut Child) -> Result<(String, Fingerprint), Failure> {
    let end = Instant::now() + PATIENCE;
    let failed = |words: &str| {
        let log = home.text("log").unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(3).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        let said = if tail.is_empty() { String::new() } else { format!(":\n{}", tail.join("\n")) };
        Failure::new(format!("{words}{said}")).hint(format!("its log: {}", home.file("log").display()))
    };
    loop {
        if let Some(ready) = home.ready() {
            return Ok(ready);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(&format!("the rack ended while it started ({status})")));
        }
        if Instant::now() > end {
            let _ = child.kill();
            return Err(failed("the rack was not ready within 30 seconds"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn uninstall(ctx: &Ctx, args: &Uninstall) -> Result<(), Failure> {
    if args.kind != "local" {
        return Err(Failure::new(format!("unknown provider: {}", args.kind)).hint("convox rack uninstall local NAME"));
    }
    let home = Home::of(ctx, &args.name)?;
    let host = ctx.settings.key("self-managed", &args.name)?;
    if !home.dir.is_dir() {
        return Err(Failure::new(format!("no local rack has the name {}", args.name)).hint("convox racks"));
    }
    if !args.force {
        if !ctx.env.stdin_is_terminal {
            return Err(Failure::new("must use --force for non-interactive uninstall"));
        }
        let typed = prompt::line(&format!("This deletes the rack {0} with all its apps and data. Type its name to go on: ", args.name))?;
        if typed != args.name {
            return Err(Failure::new("that is another name; nothing was deleted"));
        }
    }
    ctx.out.start(&format!("Uninstalling {}", ctx.out.paint(Style::Rack, &args.name)))?;
    if let Some(pid) = home.running() {
        end(&home, pid).await?;
    }
    // Apps outlive their Rack by design; those of a deleted one must not.
    let data = home.file("data");
    if data.is_dir() {
        let status = Command::new(program()?)
            .arg("stop-apps")
            .arg("--data")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(Failure::new("could not stop the rack's apps; nothing was deleted")
                .hint(format!("see why: convox-rack stop-apps --data {}", data.display())));
        }
    }
    fs::remove_dir_all(&home.dir).map_err(|error| Failure::new(format!("could not delete {}: {error}", home.dir.display())))?;
    if let Some(host) = host {
        ctx.settings.change(|change| forget(change, &args.name, &host))?;
    }
    ctx.out.ok()?;
    ctx.out.result(&args.name, &serde_json::json!({"name": args.name, "uninstalled": true}))
}

fn forget(change: &Change<'_>, name: &str, host: &str) -> Result<(), Failure> {
    change.set_key("self-managed", name, None)?;
    for file in ["auth", "pins", "session"] {
        change.set_key(file, host, None)?;
    }
    select::forget_host(change, host)?;
    for file in ["host", "console"] {
        if change.settings().text(file)? == host {
            change.remove(file)?;
        }
    }
    Ok(())
}

async fn end(home: &Home, pid: u32) -> Result<(), Failure> {
    for (signal, patience) in [(Ending::Polite, PATIENCE), (Ending::Hard, Duration::from_secs(5))] {
        send(pid, signal)?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if home.running().is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Failure::new(format!("the rack's process {pid} does not end")))
}

#[derive(Clone, Copy)]
enum Ending {
    Polite,
    Hard,
}

#[cfg(unix)]
fn send(pid: u32, how: Ending) -> Result<(), Failure> {
    use rustix::process::{Pid, Signal, kill_process};
    let signal = match how {
        Ending::Polite => Signal::TERM,
        Ending::Hard => Signal::KILL,
    };
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    match kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::new(format!("could not end the rack's process {pid:?}: {error}"))),
    }
}

#[cfg(not(unix))]
fn send(_pid: u32, _how: Ending) -> Result<(), Failure> {
    Err(Failure::new("local racks need a Unix system"))
}

/// When a process started, in whatever unit the system tells it; `None` when there is no such process (or only its remains).
fn started(pid: u32) -> Option<String> {
    if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The name in parentheses may hold anything, spaces and parentheses included.
        let rest = stat.rsplit_once(')')?.1;
        let mut words = rest.split_whitespace();
        return if words.next()? == "Z" { None } else { words.nth(18).map(str::to_owned) };
    }
    if Path::new("/proc/self/stat").exists() {
        return None;
    }
    let output = Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (!text.is_empty()).then(|| text.replace(' ', "_"))
}
