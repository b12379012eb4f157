//! One-off processes, and commands run in processes.

use std::sync::Arc;
use std::time::Duration;

use super::{DesiredApp, Inner, OneOff, SchedulerError, environment};
use crate::runtime::{ExecSpec, ExecStream, ProcessKind, ProcessState, RuntimeError};

/// How long a `run` whose client went away may come back.
const COME_BACK: Duration = Duration::from_secs(5);

pub(super) async fn run(inner: &Arc<Inner>, release: &DesiredApp, one_off: OneOff) -> Result<ProcessState, SchedulerError> {
    let service = release.manifest.service(&one_off.service);
    let service = service.ok_or_else(|| SchedulerError::NoService(one_off.service.clone()))?;
    let command = if one_off.command.is_empty() {
        environment::command(inner.runtime.isolation(), &release.dir, service).map_err(SchedulerError::Manifest)?
    } else {
        one_off.command
    };
    super::resource::ready(inner, &release.app, service).await.map_err(SchedulerError::Resource)?;
    let io = |doing: &str| {
        let doing = doing.to_owned();
        move |source| SchedulerError::Io { doing, source }
    };
    let port = match &service.port {
        Some(_) => Some(inner.ports.take().map_err(io("taking a port"))?),
        None => None,
    };
    let started = async {
        let mut spec = environment::spec(inner, release, service, command, port)?;
        spec.kind = ProcessKind::OneOff;
        spec.timer = one_off.timer;
        spec.env.extend(one_off.env);
        let asked = one_off.limits;
        spec.limits.cpu = asked.cpu.or(spec.limits.cpu);
        spec.limits.cpu_most = asked.cpu_most.or(spec.limits.cpu_most);
        spec.limits.memory = asked.memory.or(spec.limits.memory);
        Ok(inner.runtime.start(spec).await?)
    };
    let outcome: Result<ProcessState, SchedulerError> = started.await;
    if let Some(port) = port {
        give_back(inner, port, outcome.as_ref().ok());
    }
    outcome
}

/// Makes a port free again, at once or when the process has ended.
fn give_back(inner: &Arc<Inner>, port: u16, process: Option<&ProcessState>) {
    let Some(id) = process.map(|process| process.id.clone()) else { return inner.ports.release(port) };
    let inner = Arc::clone(inner);
    inner.tasks.clone().spawn(async move {
        tokio::select! {
            // An error means that it is not known any more.
            _ = inner.runtime.wait(&id) => inner.ports.release(port),
            () = inner.stop.cancelled() => {}
        }
    });
}

pub(super) async fn exec(inner: &Arc<Inner>, app: &str, id: &str, spec: ExecSpec) -> Result<ExecStream, SchedulerError> {
    let process = inner.runtime.get(id).filter(|process| process.app == app);
    let process = process.ok_or_else(|| RuntimeError::NotFound(id.to_owned()))?;
    let mut stream = inner.runtime.exec(id, spec).await?;
    if is_placeholder(&process) {
        let left = Left { inner: Arc::clone(inner), id: Some(id.to_owned()) };
        let exit = stream.exit;
        stream.exit = Box::pin(async move {
            let code = exit.await;
            // The client is there to the end, and stops the process itself.
            left.disarm();
            code
        });
    }
    Ok(stream)
}

/// Clients run a command by starting `sleep N` and executing the command in there. If such a
/// client is killed, nobody stops the sleep.
fn is_placeholder(process: &ProcessState) -> bool {
    let line = process.command_line();
    let seconds = line.strip_prefix("sleep ");
    process.kind == ProcessKind::OneOff
        && seconds.is_some_and(|seconds| !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Stops the process when the session is broken off.
struct Left {
    inner: Arc<Inner>,
    id: Option<String>,
}

impl Left {
    fn disarm(mut self) {
        self.id = None;
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        let Some(id) = self.id.take() else { return };
        let inner = Arc::clone(&self.inner);
        // Outside of a runtime (the Rack is ending) there is nobody left to do it.
        let Ok(handle) = tokio::runtime::Handle::try_current() else { return };
        self.inner.tasks.spawn_on(
            async move {
                tokio::select! {
                    () = tokio::time::sleep(COME_BACK) => {}
                    () = inner.stop.cancelled() => return,
                }
                if let Err(error) = inner.runtime.stop(&id, None).await {
                    tracing::debug!(process = %id, %error, "the process of a run whose client is gone");
                }
            },
            &handle,
        );
    }
}
