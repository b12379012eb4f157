//! What a process of an app gets to know: its environment, its command, its directory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Component, Path, PathBuf};

use super::{DesiredApp, Inner, SchedulerError, dockerfile};
use crate::command::Command;
use crate::files;
use crate::manifest::{MissingEnv, Service};
use crate::resources;
use crate::runtime::{Isolation, ProcessKind, ProcessSpec};

/// Taken over from the Rack's own environment. Nothing else is: it may hold the Rack's password.
const FROM_THE_RACK: &[&str] = &["HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "TZ", "USER"];

/// The environment of a process: the machine's if it runs there (an image has its own), then the service's entries and what
/// the release has for them, then what the Rack says, which wins.
pub(super) fn environment(
    rack: &str,
    isolation: Isolation,
    app: &DesiredApp,
    service: &Service,
    port: Option<u16>,
    links: &BTreeMap<String, u16>,
    urls: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, MissingEnv> {
    let mut env = BTreeMap::new();
    if !isolation.has_images() {
        env.extend(FROM_THE_RACK.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))));
        env.entry("PATH".to_owned()).or_insert_with(|| "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    }
    for entry in &service.resources {
        let name = entry.split_once(':').map_or(entry.as_str(), |(name, _)| name);
        env.extend(urls.get(name).map(|url| resources::variables(entry, url)).unwrap_or_default());
    }
    env.extend(app.manifest.service_environment(service, &app.env)?);
    let said = [
        ("APP", app.app.as_str()),
        ("BUILD", &app.build),
        ("BUILD_DESCRIPTION", &app.build_description),
        ("BUILD_GIT_SHA", &app.build_git_sha),
        ("RACK", rack),
        ("RELEASE", &app.release),
        ("SERVICE", &service.name),
    ];
    env.extend(said.map(|(name, value)| (name.to_owned(), value.to_owned())));
    if let Some(port) = port {
        env.insert("PORT".to_owned(), port.to_string());
    }
    for link in &service.links {
        if let Some(port) = links.get(link) {
            let name = link.to_ascii_uppercase().replace('-', "_");
            env.entry(format!("{name}_URL")).or_insert_with(|| format!("http://{}", SocketAddr::new(isolation.machine(), *port)));
        }
    }
    Ok(env)
}

/// What a runtime needs for one process of a service.
pub(super) fn spec(
    inner: &Inner,
    app: &DesiredApp,
    service: &Service,
    command: Command,
    port: Option<u16>,
) -> Result<ProcessSpec, SchedulerError> {
    let isolation = inner.runtime.isolation();
    let links = inner.balancer_ports(&app.app);
    let urls = super::resource::urls(inner, app, service);
    // Where it has a network of its own, it listens on the manifest's port, and the machine's leads there.
    let own_port = service.port.as_ref().map(|port| port.port).filter(|_| isolation.has_own_network());
    let id = super::new_process_id().map_err(|source| SchedulerError::Io { doing: "making an id".to_owned(), source })?;
    Ok(ProcessSpec {
        id,
        app: app.app.clone(),
        service: service.name.clone(),
        release: app.release.clone(),
        command: command.words,
        is_text: command.is_text,
        env: environment(&inner.config.rack, isolation, app, service, own_port.or(port), &links, &urls)?,
        dir: if isolation.has_images() { PathBuf::from("/") } else { directory(&app.dir, service) },
        port,
        kind: ProcessKind::Service,
        stop_grace: service.termination_grace,
        build: app.build.clone(),
        own_port,
        limits: inner.limits(&app.app, service),
        volumes: service.volumes.clone(),
        privileged: service.privileged,
        init: service.init,
        labels: app.manifest.labels.iter().chain(&service.labels).map(|(name, value)| (name.clone(), value.clone())).collect(),
        ..ProcessSpec::default()
    })
}

/// Where a service's processes run: what would be the root of its image.
pub(crate) fn directory(source: &Path, service: &Service) -> PathBuf {
    let path = service.build.as_ref().map_or("", |build| build.path.as_str());
    // Only ever down: a manifest must not choose a place outside of its source.
    let parts = Path::new(path).components().filter(|part| matches!(part, Component::Normal(_)));
    parts.fold(source.to_owned(), |dir, part| dir.join(part))
}

/// What a service's processes run: the manifest's command, or that of the service's Dockerfile (of the image, where there are
/// images: nothing then). The error is for the person who deploys.
pub(crate) fn command(isolation: Isolation, source: &Path, service: &Service) -> Result<Command, String> {
    if isolation.has_images() {
        return Ok(service.command.clone());
    }
    if let Some(image) = &service.image {
        return Err(format!(
            "service {} runs the image {image}, and this Rack runs plain processes only: give it `build` and `command` instead of `image`",
            service.name
        ));
    }
    if !service.command.is_empty() {
        return Ok(service.command.clone());
    }
    let manifest = service.build.as_ref().map_or("Dockerfile", |build| build.manifest.as_str());
    let text = files::read_below(&directory(source, service), manifest);
    let text = text.map_err(|reason| format!("service {}: build.manifest: {reason}", service.name))?.unwrap_or_default();
    dockerfile::command(&text)
        .map(Command::list)
        .ok_or_else(|| format!("service {} has no command: add `command` to it in convox.yml, or CMD to its {manifest}", service.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn app(manifest: &str) -> DesiredApp {
        DesiredApp {
            app: "shop".into(),
            release: "R1".into(),
            build: "B1".into(),
            manifest: Manifest::parse(manifest).unwrap(),
            env: BTreeMap::from([("KEY".into(), "release".into()), ("PORT".into(), "1".into()), ("UNNAMED".into(), "x".into())]),
            ..DesiredApp::default()
        }
    }

    #[test]
    fn the_release_wins_over_defaults_and_the_rack_over_both() {
        let app = app("services:\n  web:\n    links: [db-api]\n    environment: [KEY=default, OTHER=default, PORT, APP=mine]\n");
        let links = BTreeMap::from([("db-api".to_owned(), 10_001)]);
        let env = environment("rack1", Isolation::None, &app, &app.manifest.services[0], Some(20_001), &links, &BTreeMap::new()).unwrap();
        let of = |name: &str| env.get(name).map(String::as_str);
        assert_eq!((of("KEY"), of("OTHER"), of("PORT")), (Some("release"), Some("default"), Some("20001")));
        assert_eq!(
            (of("APP"), of("RACK"), of("RELEASE"), of("SERVICE"), of("BUILD")),
            (Some("shop"), Some("rack1"), Some("R1"), Some("web"), Some("B1"))
        );
        assert_eq!((of("DB_API_URL"), of("UNNAMED")), (Some("http://127.0.0.1:10001"), None));
        assert!(of("PATH").is_some());
        let inside = Isolation::Container { own_network: true, machine: "10.1.0.1".parse().unwrap() };
        let env = environment("rack1", inside, &app, &app.manifest.services[0], Some(80), &links, &BTreeMap::new()).unwrap();
        let of = |name: &str| env.get(name).map(String::as_str);
        assert_eq!((of("DB_API_URL"), of("PORT"), of("PATH")), (Some("http://10.1.0.1:10001"), Some("80"), None));
    }

    #[test]
    fn a_service_that_cannot_run_here_says_why() {
        let image = app("services:\n  web:\n    image: nginx\n");
        assert!(command(Isolation::None, &image.dir, &image.manifest.services[0]).unwrap_err().contains("runs the image nginx"));
        let bare = app("services:\n  web:\n");
        assert!(command(Isolation::None, &bare.dir, &bare.manifest.services[0]).unwrap_err().contains("has no command"));
    }

    #[test]
    fn without_a_command_the_dockerfile_has_a_say() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("api")).unwrap();
        std::fs::write(dir.path().join("api/Dockerfile"), "FROM x\nCMD [\"bin/api\", \"-v\"]\n").unwrap();
        let mut app = app("services:\n  web:\n    build: api\n");
        app.dir = dir.path().to_owned();
        assert_eq!(command(Isolation::None, &app.dir, &app.manifest.services[0]).unwrap().words, ["bin/api", "-v"]);
    }
}
