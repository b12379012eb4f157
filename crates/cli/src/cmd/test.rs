//! `test`: the command that each service names in `convox.yml`, in a new process of its own.

use convox_wire::options::ProcessRunOptions;
use saphyr_parser::{Event, Parser};

use super::{builds, exec};
use crate::Ctx;
use crate::args::{AppFlag, BuildOptions, IdFlag, RackFlag, Test};
use crate::error::Failure;
use crate::output::{Form, Style};

pub(super) async fn run(ctx: &Ctx, args: Test) -> Result<u8, Failure> {
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let release = match args.release.filter(|release| !release.is_empty()) {
        Some(release) => release,
        None => {
            let options = BuildOptions {
                dir: args.dir,
                build_args: Vec::new(),
                description: args.description,
                manifest: None,
                no_cache: false,
                external: false,
                wildcard_domain: false,
                id: IdFlag::default(),
                app: AppFlag::default(),
                rack: RackFlag::default(),
            };
            builds::make(&ctx.out, &rack, &app, &options, false).await?.release
        }
    };
    let manifest = rack.client.release(&app, &release).await?;
    let build = rack.client.build(&app, &manifest.build).await?;
    let tests = tests(&build.manifest)?;
    if tests.is_empty() {
        ctx.out.talk("no service in convox.yml names a test");
    }
    for (service, command) in &tests {
        ctx.out.progress(&format!("Running {command} on {}\n", ctx.out.paint(Style::Service, service)))?;
        let options =
            ProcessRunOptions { command: Some(exec::sleep(args.timeout)), release: Some(release.clone()), ..ProcessRunOptions::default() };
        let code = exec::in_new_process(ctx, &rack, &app, service, &options, command, true).await?;
        if code != 0 {
            ctx.out.failure(&Failure::new(format!("exit {code}")));
            return Ok(code);
        }
    }
    if ctx.out.form() == Form::Json {
        let ran: Vec<_> = tests.iter().map(|(service, command)| serde_json::json!({"service": service, "command": command})).collect();
        ctx.out.json(&serde_json::json!({"app": app, "release": release, "passed": ran}))?;
    }
    Ok(0)
}

/// A mapping or a list that is being read.
struct Level {
    is_mapping: bool,
    /// Of a mapping: the key whose value comes next.
    key: Option<String>,
}

/// `services.NAME.test` of a manifest, in the order of the names. The Rack has read and checked it before.
fn tests(manifest: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut levels: Vec<Level> = Vec::new();
    let mut found = Vec::new();
    for event in Parser::new_from_str(manifest) {
        let (event, _) = event.map_err(|error| Failure::new(format!("the release's convox.yml cannot be read: {error}")))?;
        match event {
            Event::MappingStart(..) => levels.push(Level { is_mapping: true, key: None }),
            Event::SequenceStart(..) => levels.push(Level { is_mapping: false, key: None }),
            Event::MappingEnd | Event::SequenceEnd => {
                levels.pop();
                taken(&mut levels);
            }
            Event::Alias(_) => taken(&mut levels),
            Event::Scalar(text, ..) => match levels.last_mut() {
                Some(Level { is_mapping: true, key: key @ None }) => *key = Some(text.into_owned()),
                Some(Level { is_mapping: true, .. }) => {
                    let path: Vec<&str> = levels.iter().map(|level| level.key.as_deref().unwrap_or_default()).collect();
                    if let ["services", name, "test"] = path.as_slice() {
                        found.push(((*name).to_owned(), text.into_owned()));
                    }
                    taken(&mut levels);
                }
                _ => {}
            },
            _ => {}
        }
    }
    found.retain(|(_, command)| !command.trim().is_empty());
    found.sort();
    Ok(found)
}

/// The value of the innermost mapping's key has been read.
fn taken(levels: &mut [Level]) {
    if let Some(level) = levels.last_mut() {
        level.key = None;
    }
}

#[cfg(test)]
mod tests_of_manifests {
    use super::tests;

    #[test]
    fn services_without_a_test_are_passed_over() {
        let found = tests("services:\n  web:\n    build: .\n    test: make test\n  api:\n    test: cargo test\n  idle: {}\n").unwrap();
        assert_eq!(found, [("api".to_owned(), "cargo test".to_owned()), ("web".to_owned(), "make test".to_owned())]);
        assert!(tests("services: {}\n").unwrap().is_empty());
        assert!(tests("x: {services: {web: {test: no}}}\nservices:\n  web:\n    timers: [{test: no}]\n").unwrap().is_empty());
        assert!(tests("a: [").is_err());
    }
}
