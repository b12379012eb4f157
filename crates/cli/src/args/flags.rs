//! Flags that many commands share.

use clap::Args;

/// `--rack/-r`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RackFlag {
    /// rack name
    #[arg(short = 'r', long, global = true, value_name = "rack")]
    pub(crate) rack: Option<String>,
}

/// `--app/-a`
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AppFlag {
    /// app name
    #[arg(short = 'a', long, global = true, value_name = "app")]
    pub(crate) app: Option<String>,
}

/// `--wait/-w`
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct WaitFlag {
    /// wait for completion
    #[arg(short = 'w', long)]
    pub(crate) wait: bool,
}

/// `--id`
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct IdFlag {
    /// put logs on stderr, the id on stdout
    #[arg(long)]
    pub(crate) id: bool,
}

/// `--watch`
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct WatchFlag {
    /// show it again every so many seconds, until Ctrl-C
    #[arg(long, value_name = "seconds")]
    pub(crate) watch: Option<u64>,
}

/// Go's duration form, as the originals take it.
pub(super) fn duration(text: &str) -> Result<std::time::Duration, String> {
    convox_wire::duration::go_parse(text).map_err(|_| format!("`{text}` is no duration; write 90s, 10m or 1h30m"))
}
