//! Memory and descriptors of each server, looked at every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::faults::Outage;
use crate::measure;

const EVERY: Duration = Duration::from_secs(1);
/// After an outage, connections are made again.
const CALM: Duration = Duration::from_secs(5);

struct Sample {
    at: Instant,
    memory: u64,
    descriptors: usize,
}

/// What was seen of one process.
pub(super) struct Sizes {
    pub(super) name: String,
    pid: u32,
    samples: Vec<Sample>,
}

/// From one time to a later one.
pub(super) struct Change {
    pub(super) first: f64,
    pub(super) last: f64,
}

impl Change {
    /// In percent.
    pub(super) fn growth(&self) -> f64 {
        (self.last / self.first - 1.0) * 100.0
    }
}

pub(super) fn follow(of: Vec<(String, u32)>, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<Sizes>> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut all: Vec<Sizes> = of.into_iter().map(|(name, pid)| Sizes { name, pid, samples: Vec::new() }).collect();
        while !stop.load(Relaxed) {
            for sizes in &mut all {
                let descriptors = std::fs::read_dir(format!("/proc/{}/fd", sizes.pid)).map(Iterator::count);
                if let (Ok(memory), Ok(descriptors)) = (measure::resident(sizes.pid), descriptors) {
                    sizes.samples.push(Sample { at: Instant::now(), memory, descriptors });
                }
            }
            std::thread::sleep(EVERY);
        }
        all
    })
}

impl Sizes {
    /// Memory in megabytes, and descriptors: medians of the first and of the last third of the time after `warm`, while nothing was away.
    pub(super) fn changes(&self, warm: Instant, outages: &[Outage]) -> Option<(Change, Change)> {
        let is_calm = |at: Instant| !outages.iter().any(|outage| at >= outage.from && at <= outage.to + CALM);
        let calm: Vec<&Sample> = self.samples.iter().filter(|sample| sample.at >= warm && is_calm(sample.at)).collect();
        let third = calm.len() / 3;
        let (first, last) = (calm.get(..third).filter(|first| !first.is_empty())?, calm.get(calm.len() - third..)?);
        let change = |of: &dyn Fn(&Sample) -> f64| {
            let median = |samples: &[&Sample]| measure::median(&samples.iter().map(|sample| of(sample)).collect::<Vec<_>>());
            Change { first: median(first), last: median(last) }
        };
        Some((change(&|sample| sample.memory as f64 / 1_048_576.0), change(&|sample| sample.descriptors as f64)))
    }
}
