//! Volumes of a service as mounts of its containers.

use super::Rights;
use super::spec::{Mount, Names};
use crate::runtime::ProcessSpec;

/// The mounts of a process. `PATH` is a volume of the service's own, kept from release to release; `NAME:PATH` is one that
/// the services of an app share; `/DIR:PATH` is a directory of the machine, where the administrator allows that.
pub(super) fn mounts(names: &Names, rights: Rights, spec: &ProcessSpec) -> Result<Vec<Mount>, String> {
    spec.volumes.iter().map(|volume| mount(names, rights, spec, volume)).collect()
}

fn mount(names: &Names, rights: Rights, spec: &ProcessSpec, volume: &str) -> Result<Mount, String> {
    let service = &spec.service;
    let (from, to) = volume.split_once(':').map_or((None, volume), |(from, to)| (Some(from), to));
    let is_plain = |path: &str| path.starts_with('/') && path.len() > 1 && !path.contains(':') && !path.split('/').any(|part| part == "..");
    if !is_plain(to) {
        return Err(format!(
            "volume {volume:?} of service {service}: give PATH, NAME:PATH or /DIR:PATH, with absolute paths and without options"
        ));
    }
    let from = match from {
        None => names.volume(&spec.app, service, to),
        Some(from) if from.starts_with('/') => {
            if !rights.machine_volumes {
                let why = "is a directory of the machine, which other apps and the Rack share; start the Rack with --allow-machine-volumes";
                return Err(format!("volume {volume:?} of service {service} {why}, or give only the path in the container"));
            }
            if !is_plain(from) {
                return Err(format!("volume {volume:?} of service {service}: {from:?} is not an absolute path"));
            }
            from.to_owned()
        }
        Some(from) if !from.is_empty() && from.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') => {
            names.volume(&spec.app, from, "/shared")
        }
        Some(from) => return Err(format!("volume {volume:?} of service {service}: {from:?} is not a name")),
    };
    Ok(Mount { from, to: to.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(volume: &str, machine_volumes: bool) -> Result<Vec<Mount>, String> {
        let spec = ProcessSpec { app: "shop".into(), service: "web".into(), volumes: vec![volume.into()], ..ProcessSpec::default() };
        mounts(&Names { rack: "r".into(), prefix: "convox-r".into() }, Rights { machine_volumes, privileged: false }, &spec)
    }

    #[test]
    fn a_volume_belongs_to_its_app_and_the_machine_is_out_of_reach() {
        assert_eq!(of("/data", false).unwrap(), [Mount { from: "convox-r.shop.web.data".into(), to: "/data".into() }]);
        assert_eq!(of("cache:/data", false).unwrap(), [Mount { from: "convox-r.shop.cache.shared".into(), to: "/data".into() }]);
        assert!(of("/etc:/data", false).unwrap_err().contains("--allow-machine-volumes"));
        assert_eq!(of("/srv/x:/data", true).unwrap(), [Mount { from: "/srv/x".into(), to: "/data".into() }]);
        for bad in ["data", "/data:ro:x", "/", "a/b:/data", "/srv/../etc:/data", "x:/a/../b"] {
            assert!(of(bad, true).is_err(), "{bad}");
        }
    }
}
