//! What the system knows of this process, under the names that every Prometheus library uses.

/// Name, kind, help, value; only what this system tells.
pub fn all() -> Vec<(&'static str, &'static str, &'static str, f64)> {
    let mut all = Vec::new();
    let page = rustix::param::page_size() as f64;
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let read = |path: &str| std::fs::read_to_string(path).ok();
    if let Some(statm) = read("/proc/self/statm") {
        let pages: Vec<f64> = statm.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        if let [size, resident, ..] = pages[..] {
            all.push(("process_virtual_memory_bytes", "gauge", "Memory that is mapped.", size * page));
            all.push(("process_resident_memory_bytes", "gauge", "Memory that is held.", resident * page));
        }
    }
    // Behind the name, which may hold spaces and ends with the last parenthesis.
    if let Some(stat) = read("/proc/self/stat")
        && let Some((_, rest)) = stat.rsplit_once(')')
    {
        let fields: Vec<f64> = rest.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
        if let (Some(user), Some(system), Some(threads)) = (fields.get(10), fields.get(11), fields.get(16)) {
            all.push(("process_cpu_seconds_total", "counter", "Time of processors that was used.", (user + system) / ticks));
            all.push(("process_threads", "gauge", "Threads.", *threads));
        }
        let booted =
            read("/proc/stat").and_then(|stat| stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok()));
        if let (Some(began), Some(booted)) = (fields.get(18), booted) {
            all.push(("process_start_time_seconds", "gauge", "When it was started, seconds since 1970.", booted + began / ticks));
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        // Without the one by which they are counted.
        all.push(("process_open_fds", "gauge", "Descriptors that are open.", open.count().saturating_sub(1) as f64));
    }
    if let Some(most) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        all.push(("process_max_fds", "gauge", "Descriptors that may be open.", most as f64));
    }
    all
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_has_a_size_descriptors_and_an_age() {
        let all = super::all();
        let value = |name: &str| all.iter().find(|(known, ..)| *known == name).map_or(-1.0, |(.., value)| *value);
        assert!(value("process_resident_memory_bytes") > 1e6, "{all:?}");
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") >= value("process_open_fds"), "{all:?}");
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0, "{all:?}");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((value("process_start_time_seconds") - now).abs() < 600.0, "{all:?}");
    }
}
