//! `api get`: any path of the Rack API, as JSON.

use crate::Ctx;
use crate::args::RackFlag;
use crate::error::Failure;

pub(super) async fn get(ctx: &Ctx, path: &str, rack: &RackFlag) -> Result<u8, Failure> {
    let rack = ctx.rack(rack).await?;
    let value = rack.client.raw(path).await?;
    ctx.out.json(&value)?;
    Ok(0)
}
