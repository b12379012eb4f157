//! Options travel where the originals put them, and survive the journey.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestRng;

use super::*;
use crate::time::Time;

#[test]
fn options_travel_where_the_originals_put_them() {
    let run = ProcessRunOptions {
        command: Some("sleep 3600".into()),
        environment: Some([("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2 3".to_owned())].into()),
        ..Default::default()
    };
    let placed = run.encode();
    assert_eq!(placed.headers, [("Command", "sleep 3600".to_owned()), ("Environment", "A=1&B=2+3".to_owned())]);
    assert!(placed.form.is_empty() && placed.query.is_empty());

    let update = AppUpdateOptions { lock: Some(true), parameters: Some([("A".to_owned(), "1".to_owned())].into()) };
    assert_eq!(update.encode().form.encode(), "lock=true&parameters=A%3D1");
    let build = BuildCreateOptions { build_args: Some(vec!["A=1".into(), "B=2".into()]), no_cache: Some(false), ..Default::default() };
    assert_eq!(build.encode().form.encode(), "build-args=A%3D1%2CB%3D2&no-cache=false");
    assert_eq!(ReleaseListOptions { limit: Some(1) }.encode().query.encode(), "limit=1");
    let metrics = MetricsOptions { start: Some("2026-01-02T03:04:05.6Z".parse().unwrap()), period: Some(60), ..Default::default() };
    assert_eq!(metrics.encode().query.encode(), "period=60&start=20260102.030405.600000000");
    let logs = LogOptions { since: Some(Duration::from_mins(5)), follow: Some(false), ..Default::default() };
    assert_eq!(logs.encode().headers, [("Follow", "false".to_owned()), ("Since", "5m0s".to_owned())]);
    assert_eq!(ProcessExecOptions { command: Some("sh".into()), ..Default::default() }.encode().headers, [("Command", "sh".to_owned())]);
    let token = SystemJwtOptions { role: Some("read".into()), duration_in_hour: Some("1".into()) };
    assert_eq!(token.encode().form.encode(), "durationInHour=1&role=read");
}

#[test]
fn what_is_not_given_is_not_sent_and_has_the_default_of_the_originals() {
    assert_eq!(LogOptions::default().encode(), Placed::default());
    assert_eq!(LogOptions::decode(&Placed::default()), Ok(LogOptions::default()));
    let logs = LogOptions::default();
    assert_eq!((logs.since(), logs.follow(), logs.prefix()), (Duration::from_mins(2), true, false));
    assert!(ProcessExecOptions::default().tty());
    assert_eq!(AppCreateOptions::default().generation(), "2");
    let diagnose = DiagnoseOptions::default();
    assert_eq!((diagnose.age(), diagnose.lines(), diagnose.events(), diagnose.previous()), (300, 200, true, true));
}

#[test]
fn a_loose_value_is_found_in_form_query_and_header() {
    let header = Placed { headers: vec![("ROLE", "write".into())], ..Default::default() };
    let query = Placed { query: [("role", "read")].into_iter().collect(), ..header.clone() };
    let form = Placed { form: [("role", "admin")].into_iter().collect(), ..query.clone() };
    let empty = Placed { form: [("role", "")].into_iter().collect(), ..header.clone() };
    for (source, role) in [(&header, "write"), (&query, "read"), (&form, "admin"), (&empty, "write")] {
        assert_eq!(SystemJwtOptions::decode(source).unwrap().role.as_deref(), Some(role));
    }
}

#[test]
fn a_bad_value_names_its_option() {
    let placed = Placed { headers: vec![("Since", "yesterday".to_owned())], ..Default::default() };
    let error = LogOptions::decode(&placed).unwrap_err();
    assert!(error.to_string().contains("Since") && error.to_string().contains("yesterday"), "{error}");
    assert!(ServiceUpdateOptions::decode(&Placed { form: [("count", "many")].into_iter().collect(), ..Default::default() }).is_err());
}

#[test]
fn debug_shows_no_secret() {
    let map = || Some(BTreeMap::from([("PASSWORD".to_owned(), "canary".to_owned())]));
    let text = || Some("canary".to_owned());
    let release = ReleaseCreateOptions { env: text(), build: Some("B1".into()), ..Default::default() };
    let shown = [
        format!("{release:?}"),
        format!("{:?}", release.encode()),
        format!("{:?}", ProcessRunOptions { environment: map(), ..Default::default() }),
        format!("{:?}", AppUpdateOptions { parameters: map(), ..Default::default() }),
        format!("{:?}", SystemUpdateOptions { parameters: map(), ..Default::default() }),
        format!("{:?}", BuildImportImageOptions { src_creds_pass: text(), ..Default::default() }),
        format!("{:?}", InstanceShellOptions { private_key: text(), ..Default::default() }),
        format!("{:?}", RackCreateOptions { state: text(), params: text(), ..Default::default() }),
    ];
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
    assert_eq!(format!("{release:?}"), r#"ReleaseCreateOptions { build: "B1", env: (hidden) }"#);
}

/// Values of every kind, the awkward ones among them.
pub(super) trait Sample: Sized {
    fn sample(rng: &mut TestRng) -> Self;
}

impl<T: Sample> Sample for Option<T> {
    fn sample(rng: &mut TestRng) -> Self {
        (!rng.next_u32().is_multiple_of(3)).then(|| T::sample(rng))
    }
}

impl Sample for bool {
    fn sample(rng: &mut TestRng) -> Self {
        rng.next_u32().is_multiple_of(2)
    }
}

impl Sample for i64 {
    fn sample(rng: &mut TestRng) -> Self {
        match rng.next_u32() % 4 {
            0 => 0,
            1 => i64::from(rng.next_u32() % 1000),
            2 => i64::MIN,
            _ => rng.next_u64() as i64,
        }
    }
}

impl Sample for String {
    fn sample(rng: &mut TestRng) -> Self {
        const LETTERS: [char; 16] = ['a', 'Z', '0', ' ', '+', '%', '&', '=', ';', '/', '?', '\n', '"', 'é', '\u{0}', '🦀'];
        (0..rng.next_u32() % 8).map(|_| LETTERS[rng.next_u32() as usize % LETTERS.len()]).collect()
    }
}

impl Sample for Duration {
    fn sample(rng: &mut TestRng) -> Self {
        Duration::from_nanos(rng.next_u64() >> (1 + rng.next_u32() % 60))
    }
}

impl Sample for Time {
    fn sample(rng: &mut TestRng) -> Self {
        match rng.next_u32() % 4 {
            0 => Time::ZERO,
            _ => Time::from_millis((rng.next_u64() % 4_000_000_000_000) as i64),
        }
    }
}

impl Sample for Map {
    fn sample(rng: &mut TestRng) -> Self {
        (0..rng.next_u32() % 4).map(|_| (String::sample(rng), String::sample(rng))).collect()
    }
}

/// No commas, which the wire cannot carry inside an item, and no list of one empty item, which it cannot tell from an empty list.
impl Sample for List {
    fn sample(rng: &mut TestRng) -> Self {
        (0..rng.next_u32() % 4).map(|_| format!("x{}", String::sample(rng))).collect()
    }
}

fn survives<T: Options + Sample + PartialEq + std::fmt::Debug>(rng: &mut TestRng) {
    let options = T::sample(rng);
    // Not by `assert_eq`: `Debug` hides what may differ.
    assert!(T::decode(&options.encode()).as_ref() == Ok(&options), "{options:?}");
}

/// A source in which every name has the same text.
struct Everywhere(String);

impl Source for Everywhere {
    fn header(&self, _: &str) -> Option<&str> {
        Some(&self.0)
    }

    fn form(&self, _: &str) -> Option<&str> {
        Some(&self.0)
    }

    fn query(&self, _: &str) -> Option<&str> {
        Some(&self.0)
    }
}

macro_rules! all {
    ($($name:ident),+ $(,)?) => {
        fn all_survive(rng: &mut TestRng) {
            $(survives::<$name>(rng);)+
        }

        fn all_read(source: &dyn Source) {
            $(let _ = $name::decode(source);)+
        }

        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

all!(
    AppBudgetOptions,
    AppBudgetResetOptions,
    AppCreateOptions,
    AppUpdateOptions,
    DiagnoseOptions,
    BuildCreateOptions,
    BuildImportImageOptions,
    BuildListOptions,
    BuildUpdateOptions,
    ObjectStoreOptions,
    RackCreateOptions,
    RackInstallOptions,
    RackUpdateOptions,
    RuntimeAttachOptions,
    WorkflowRunOptions,
    FilesUploadOptions,
    LogOptions,
    MetricsOptions,
    ProcessExecOptions,
    ProcessListOptions,
    ProcessRunOptions,
    ReleaseCreateOptions,
    ReleaseListOptions,
    ReleasePromoteOptions,
    ServiceScaleOverrideOptions,
    ServiceThresholdOptions,
    ServiceTriggersOptions,
    ServiceUpdateOptions,
    CertificateCreateOptions,
    CertificateGenerateOptions,
    CertificateListOptions,
    EventSendOptions,
    InstanceShellOptions,
    ResourceConsoleOptions,
    ResourceCreateOptions,
    ResourceUpdateOptions,
    SystemJwtOptions,
    SystemJwtRotateOptions,
    PasswordAcceptOptions,
    PasswordRetireOptions,
    SystemProcessesOptions,
    SystemUpdateOptions,
);

#[test]
fn every_call_has_its_round_trip_tested() {
    let sources = [
        include_str!("apps.rs"),
        include_str!("builds.rs"),
        include_str!("console.rs"),
        include_str!("processes.rs"),
        include_str!("releases.rs"),
        include_str!("services.rs"),
        include_str!("system.rs"),
    ];
    let declared = sources.iter().flat_map(|source| source.lines()).filter_map(|line| line.strip_prefix("    ")?.strip_suffix("Options {"));
    let declared: Vec<String> = declared.map(|name| format!("{name}Options")).collect();
    for name in &declared {
        assert!(TESTED.contains(&name.as_str()), "{name}");
    }
    assert_eq!(declared.len(), TESTED.len());
}

proptest! {
    #[test]
    fn options_survive_the_journey(() in Just(()).prop_perturb(|(), mut rng| all_survive(&mut rng))) {}

    #[test]
    fn no_text_panics(text in ".*") {
        all_read(&Everywhere(text));
    }
}
