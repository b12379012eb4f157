//! The short code (RFC 8628): for machines without a browser.

use std::time::{Duration, Instant};

use convox_client::Error;
use convox_client::console::{Granted, Token};

use super::{At, denied, device_name};
use crate::Ctx;
use crate::error::Failure;

/// How much longer to wait between two questions when the Console says so (RFC 8628, 3.5).
const SLOWER: Duration = Duration::from_secs(5);
/// The longest wait between two questions, whatever is asked for.
const LONGEST: Duration = Duration::from_mins(1);

pub(crate) async fn sign_in(ctx: &Ctx, at: At<'_>) -> Result<Token, Failure> {
    let client = at.client(ctx).await?;
    let device = client.authorize_device(&device_name(ctx)).await.map_err(|error| match error {
        Error::Server { status: 429, .. } => {
            Failure::new(format!("too many sign-ins wait for somebody at {}", at.host)).hint("try again in ten minutes")
        }
        error => error.into(),
    })?;
    let end = Instant::now() + Duration::from_secs(device.expires_in.min(600));
    let code: String = device.user_code.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(20).collect();
    ctx.out.talk(&format!("Open {} on any device, and enter this code:\n\n  {code}\n", at.page(ctx, "/console/device")?));
    ctx.out.talk(&format!("This machine calls itself `{}`. Waiting, at most ten minutes (Ctrl-C to stop)...", device_name(ctx)));
    let mut wait = Duration::from_secs(device.interval.max(1)).min(LONGEST);
    loop {
        tokio::time::sleep(wait).await;
        let ended = || Failure::new("nobody entered the code in time").hint(format!("convox login {} --device, for a new one", at.host));
        match client.poll_device(&device).await {
            Ok(Granted::Token(token)) => return Ok(token),
            Ok(Granted::Pending) => {}
            Ok(Granted::SlowDown) => wait = (wait + SLOWER).min(LONGEST),
            Ok(Granted::Denied) => return Err(denied()),
            Ok(Granted::Ended) => return Err(ended()),
            // The network and the Console may have their moments; the code waits, and so do we.
            Err(Error::Timeout { .. }) => wait = (wait * 2).min(LONGEST),
            Err(Error::Closed { .. } | Error::Refused { .. } | Error::Unreachable { .. } | Error::Server { status: 500.., .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if Instant::now() >= end {
            return Err(ended());
        }
    }
}
