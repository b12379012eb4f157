//! Running a command in a container, for a client that may go away at any time.

use std::path::Path;
use std::time::Duration;

use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use futures_util::future::BoxFuture;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::{ContainerSpec, Engine, is_missing, raw, reason, shell};
use crate::runtime::process::procfs;
use crate::runtime::{ExecSpec, ExecStream, RuntimeError, TerminalSize};

/// How often, and how fast, an engine is asked for the code of a command whose output has ended.
const ASKED: u32 = 200;
const PAUSE: Duration = Duration::from_millis(50);
/// What is left over may end in, after the command ended or its client went away.
const AFTER_END: Duration = Duration::from_secs(1);
/// Tries to tell a terminal its size: some engines have none until the command runs.
const SIZE_TRIES: u32 = 20;
/// In the environment of everything that one session starts. Engines cannot end an exec; by this it is found.
const MARK: &str = "CONVOX_EXEC_SESSION";

pub(super) async fn exec(
    engine: &Engine,
    container: &ContainerSpec,
    id: &str,
    spec: ExecSpec,
    ended: BoxFuture<'static, ()>,
) -> Result<ExecStream, RuntimeError> {
    let failed =
        |doing: &str, error: std::io::Error| RuntimeError::Io { doing: format!("{doing} for exec in process {id}"), source: error };
    let mark = uuid::Uuid::new_v4().simple().to_string();
    let mut env: Vec<String> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    env.push(format!("{MARK}={mark}"));
    if spec.tty.is_some() && !spec.env.contains_key("TERM") {
        env.push("TERM=xterm".to_owned());
    }
    let mut words = if spec.entrypoint { entrypoint(engine, container).await } else { Vec::new() };
    // An ENTRYPOINT gets what it gets from a service with this command.
    let own = if spec.entrypoint { shell::words_for(engine, &container.image, &spec.command).await } else { None };
    if let Some(own) = own {
        words.extend(own);
    } else if shell::is_in(engine, &container.name).await {
        // Engines can size a terminal only once the command runs, which is too late for one that looks at once: where the image has
        // stty, it is sized before.
        let size = spec.tty.map(|size| format!("stty rows {} cols {} 2>/dev/null\n", size.rows, size.columns));
        words.extend(["sh".to_owned(), "-c".to_owned(), format!("{}{}", size.unwrap_or_default(), spec.command)]);
    } else {
        let (without, _) =
            shell::words_without(&spec.command).map_err(|reason| failed("reading the command", std::io::Error::other(reason)))?;
        words.extend(without);
    }
    let options = CreateExecOptions {
        attach_stdin: Some(!spec.no_input),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(spec.tty.is_some()),
        env: Some(env),
        cmd: Some(words),
        ..CreateExecOptions::default()
    };
    let created = engine.docker.create_exec(&container.name, options).await.map_err(|error| {
        if is_missing(&error) {
            RuntimeError::NotRunning(id.to_owned())
        } else {
            failed("asking the engine", std::io::Error::other(reason(&error)))
        }
    })?;
    let session = Session { engine: engine.clone(), container: container.clone(), exec: created.id, mark, over: false };
    let (input, output) =
        raw::start(engine, &session.exec, spec.tty.is_some()).await.map_err(|error| failed("starting the command", error))?;
    if let Some(size) = spec.tty {
        session.resize(size).await;
    }
    let input = if spec.no_input { Box::new(tokio::io::sink()) } else { input };
    let exit = Box::pin(async move {
        tokio::select! {
            code = session.conclude() => code,
            // The container is gone, and the command with it.
            () = ended => 137,
        }
    });
    Ok(ExecStream { input, output, exit })
}

/// The ENTRYPOINT of a container's image; none if the engine does not say.
async fn entrypoint(engine: &Engine, container: &ContainerSpec) -> Vec<String> {
    let seen = engine.docker.inspect_container(&container.name, None::<bollard::query_parameters::InspectContainerOptions>).await;
    seen.ok().and_then(|seen| seen.config?.entrypoint).unwrap_or_default()
}

/// One command in a container. Dropped before its end, it ends everything that it started.
struct Session {
    engine: Engine,
    container: ContainerSpec,
    exec: String,
    mark: String,
    over: bool,
}

impl Session {
    async fn resize(&self, size: TerminalSize) {
        let options = ResizeExecOptions { height: size.rows, width: size.columns };
        for _ in 0..SIZE_TRIES {
            if self.engine.docker.resize_exec(&self.exec, options).await.is_ok() {
                return;
            }
            // It is over already, or not there yet.
            if matches!(self.engine.docker.inspect_exec(&self.exec).await, Ok(seen) if seen.running == Some(false) && seen.exit_code.is_some_and(|code| code != 0))
            {
                return;
            }
            sleep(PAUSE).await;
        }
    }

    async fn conclude(mut self) -> i32 {
        let mut code = 255;
        for _ in 0..ASKED {
            match self.engine.docker.inspect_exec(&self.exec).await {
                Ok(seen) if seen.running == Some(false) => {
                    code = seen.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(255);
                    break;
                }
                Err(error) if is_missing(&error) => break,
                _ => sleep(PAUSE).await,
            }
        }
        self.over = true;
        // Background jobs that it left. Nobody waits for them.
        tokio::spawn(end_marked(self.engine.clone(), self.container.clone(), self.mark.clone()));
        code
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        // Outside of a runtime (the Rack is ending) there is nobody left to do it.
        let Ok(handle) = Handle::try_current() else { return };
        handle.spawn(end_marked(self.engine.clone(), self.container.clone(), self.mark.clone()));
    }
}

/// Ends every process that carries the mark.
async fn end_marked(engine: Engine, container: ContainerSpec, mark: String) {
    let needle = format!("{MARK}={mark}");
    let marked = |needle: String| tokio::task::spawn_blocking(move || marked(needle.as_bytes()));
    let Ok(Some(found)) = marked(needle.clone()).await else {
        // The engine's processes are not ours to see: one inside the container has to look.
        let script = format!(
            "for p in /proc/[0-9]*; do if grep -q '{needle}' $p/environ 2>/dev/null && [ ${{p#/proc/}} != $$ ]; then kill -HUP ${{p#/proc/}}; fi; done"
        );
        let options = CreateExecOptions {
            cmd: Some(vec!["sh".to_owned(), "-c".to_owned(), script]),
            attach_stdout: Some(true),
            ..CreateExecOptions::default()
        };
        if let Ok(created) = engine.docker.create_exec(&container.name, options).await {
            let detached = bollard::exec::StartExecOptions { detach: true, ..Default::default() };
            let _ = engine.docker.start_exec(&created.id, Some(detached)).await;
        }
        return;
    };
    for pid in &found {
        procfs::signal(*pid, Signal::HUP);
    }
    if found.is_empty() {
        return;
    }
    sleep(AFTER_END).await;
    // Whoever is left had its time; look again, since some may have started others.
    if let Ok(Some(left)) = marked(needle).await {
        for pid in left {
            procfs::signal(pid, Signal::KILL);
        }
    }
}

/// Processes of this machine whose environment has these words; `None` if it may not be read.
fn marked(needle: &[u8]) -> Option<Vec<i32>> {
    let is_root = rustix::process::geteuid().is_root();
    let mut found = Vec::new();
    for entry in std::fs::read_dir(Path::new("/proc")).ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(environment) = std::fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(|variable| variable == needle) {
            found.push(pid);
        }
    }
    (is_root || !found.is_empty()).then_some(found)
}
