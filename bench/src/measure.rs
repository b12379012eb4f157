//! What a process has used, read from `/proc`, and what `wrk` reports.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

/// CPU time of a process and its threads so far, in nanoseconds, as the scheduler counts it.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))? {
        let schedstat = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += schedstat.split(' ').next().and_then(|text| text.parse::<u64>().ok()).context("schedstat is not a number")?;
    }
    Ok(total)
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that was resident since [`forget_peak`], in bytes.
pub(crate) fn peak(pid: u32) -> anyhow::Result<u64> {
    memory(pid, "VmHWM:")
}

/// What is resident now counts as the most that ever was.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("the peak of process {pid} cannot be reset"))
}

fn memory(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("process {pid} is gone"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().with_context(|| format!("{name} is not a number"))?;
    Ok(kilobytes * 1024)
}

/// One run of the load.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) requests: u64,
    pub(crate) seconds: f64,
    /// Milliseconds.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Not a number where the script does not print it.
    pub(crate) p999: f64,
}

/// For a script of wrk: one more line, like those that wrk prints itself.
pub(crate) const LAST_PERCENTILE: &str =
    "done = function(summary, latency, requests) print(string.format('99.9%% %.2fus', latency:percentile(99.9))) end\n";

/// Drives `url` with one thread of `wrk` on `core`. Fails if any answer was not a good one.
pub(crate) fn load(
    core: usize,
    url: &str,
    connections: usize,
    time: Duration,
    headers: &[String],
    script: Option<&Path>,
) -> anyhow::Result<Load> {
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", &core.to_string(), "wrk", "-t1", "--latency"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", time.as_secs().max(1)));
    for header in headers {
        wrk.args(["-H", header]);
    }
    if let Some(script) = script {
        wrk.arg("-s").arg(script);
    }
    let output = wrk.arg(url).output().context("cannot run wrk: apt-get install wrk")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("wrk failed: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    parse(&text).with_context(|| format!("wrk said: {text}"))
}

fn parse(text: &str) -> anyhow::Result<Load> {
    if let Some(bad) = text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors")) {
        bail!("not every request was answered well: {}", bad.trim());
    }
    let total = text.lines().find(|line| line.contains(" requests in ")).context("no total")?;
    let mut words = total.split_whitespace();
    let requests = words.next().and_then(|word| word.parse().ok()).context("no count")?;
    let seconds = words.nth(2).and_then(|word| milliseconds(word.trim_end_matches(','))).context("no time")? / 1000.0;
    let percentile = |name: &str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(name))
            .and_then(|rest| milliseconds(rest.trim()))
            .with_context(|| format!("no {name}"))
    };
    Ok(Load { requests, seconds, p50: percentile("50%")?, p99: percentile("99%")?, p999: percentile("99.9%").unwrap_or(f64::NAN) })
}

/// `1.50ms`, `900.00us`, `6.10s`.
fn milliseconds(text: &str) -> Option<f64> {
    let (digits, factor) = match text {
        text if text.ends_with("us") => (text.trim_end_matches("us"), 0.001),
        text if text.ends_with("ms") => (text.trim_end_matches("ms"), 1.0),
        text if text.ends_with('s') => (text.trim_end_matches('s'), 1000.0),
        text if text.ends_with('m') => (text.trim_end_matches('m'), 60_000.0),
        _ => return None,
    };
    digits.parse::<f64>().ok().map(|value| value * factor)
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (Some(upper), 0) => f64::midpoint(*upper, sorted.get(middle.saturating_sub(1)).copied().unwrap_or(*upper)),
        (Some(value), _) => *value,
        (None, _) => f64::NAN,
    }
}

/// First line that a program prints about itself.
pub(crate) fn version(program: &str, flag: &str) -> String {
    Command::new(program)
        .arg(flag)
        .output()
        .ok()
        .and_then(|output| {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).lines().next().map(|line| line.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned())
}

/// What the machine is.
pub(crate) fn machine() -> String {
    let model = std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            text.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": ").map(|(_, name)| name.to_owned()))
        })
        .unwrap_or_else(|| "unknown CPU".to_owned());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    // All of them, not only those that this program is kept to.
    let cores = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default().lines().filter(|line| line.starts_with("processor")).count();
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// Writes a file and the directories above it.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_read() {
        let load = parse(
            "Running 2s test @ http://127.0.0.1:1/\n  1 threads and 64 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     1.51ms  100us  5ms 90%\n\
             \x20 Latency Distribution\n     50%    1.45ms\n     75%    1.60ms\n     90%    1.80ms\n     99%  900.00us\n  84215 requests in 2.10s, 33.00MB read\nRequests/sec:  40102.38\n",
        )
        .unwrap();
        assert_eq!((load.requests, load.p50, load.p99), (84_215, 1.45, 0.9));
        assert!((load.seconds - 2.1).abs() < 1e-9);
        assert!(parse("  1 requests in 2.10s, 3MB read\n  Non-2xx or 3xx responses: 1\n").is_err());
    }

    #[test]
    fn medians_of_even_and_odd_counts() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
    }
}
