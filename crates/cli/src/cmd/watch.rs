//! `--watch`: a listing that is shown again and again.

use std::time::Duration;

use crate::Ctx;
use crate::args::WatchFlag;
use crate::error::Failure;

impl Ctx {
    /// Shows a listing once, or until Ctrl-C. What cannot be shown at first is an error; later it is told, and tried again.
    pub(super) async fn watched(&self, flag: WatchFlag, show: impl AsyncFn() -> Result<(), Failure>) -> Result<(), Failure> {
        let Some(seconds) = flag.watch.filter(|seconds| *seconds > 0) else { return show().await };
        if self.out.is_json() {
            return Err(Failure::new("--watch and --json exclude each other").hint("--json gives one document"));
        }
        let again = async {
            let mut is_first = true;
            loop {
                if self.env.stdout_is_terminal {
                    self.out.raw(b"\x1b[H\x1b[2J\x1b[3J")?;
                }
                self.out.line(&format!("Every {seconds}s:\n"))?;
                match show().await {
                    Err(failure) if is_first || failure.is_broken_pipe() => return Err(failure),
                    Err(failure) => self.out.failure(&failure),
                    Ok(()) => {}
                }
                is_first = false;
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
        };
        tokio::select! {
            ended = again => ended,
            _ = tokio::signal::ctrl_c() => Ok(()),
        }
    }
}
