//! What a manifest means, and that nothing in one does harm.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

/// Just below the cap, so that the text is really read.
const SIZE_CAP_FOR_TESTS: usize = tree::SIZE_CAP - 1;

fn parse(text: &str) -> Manifest {
    Manifest::parse(text).unwrap()
}

fn refusal(text: &str) -> String {
    Manifest::parse(text).unwrap_err().to_string()
}

fn web(body: &str) -> Service {
    let indented: String = body.lines().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "    {line}");
        text
    });
    parse(&format!("services:\n  web:\n{indented}")).services.remove(0)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn a_bare_service_has_the_originals_defaults() {
    let service = parse("services:\n  web:\n").services.remove(0);
    assert_eq!(service.build, Some(Build { path: ".".into(), manifest: "Dockerfile".into(), ..Build::default() }));
    assert_eq!(service.scale, Scale { min: 1, max: 1, cpu: 256, memory: 512, ..Scale::default() });
    assert_eq!(service.health, Health { path: None, interval: seconds(5), timeout: seconds(4), grace: seconds(5) });
    assert_eq!(service.deployment, Deployment { minimum: 50, maximum: 200 });
    assert_eq!((service.drain, service.termination_grace), (seconds(30), seconds(30)));
    assert!(service.sticky && !service.internal && !service.singleton);
}

#[test]
fn a_large_manifest_of_the_real_format_is_read_whole() {
    let manifest = Manifest::parse_with(include_str!("../../tests/manifests/full.yml"), &BTreeMap::from([("BAR".into(), "all".into())]));
    let manifest = manifest.unwrap();
    let names: Vec<&str> = manifest.services.iter().map(|service| service.name.as_str()).collect();
    assert_eq!(names, ["api", "proxy", "site", "bare", "scaler", "inherit", "agent"]);
    let api = manifest.service("api").unwrap();
    assert_eq!(api.command.words, ["bin/api", "start"]);
    assert_eq!(api.build, Some(Build { path: "api".into(), manifest: "Dockerfile2".into(), ..Build::default() }));
    assert_eq!(api.test.as_deref(), Some("make all test"));
    assert_eq!((api.scale.min, api.scale.max), (3, 10));
    assert_eq!(api.health, Health { path: Some("/".into()), interval: seconds(10), timeout: seconds(9), grace: seconds(10) });
    assert_eq!(api.termination_grace, seconds(45));
    let inherit = manifest.service("inherit").unwrap();
    assert_eq!(inherit.command, crate::command::Command::text("inherit"));
    assert_eq!(inherit.image.as_deref(), Some("ubuntu:16.04"));
    assert_eq!(inherit.port, Some(ServicePort { port: 2000, scheme: "https".into() }));
    assert_eq!(inherit.domains, ["bar.example.org", "*.example.org"]);
    assert_eq!(manifest.service("site").unwrap().deployment, Deployment { minimum: 0, maximum: 100 });
    assert_eq!(manifest.timers[0].schedule, "*/1 * * * ?");
    assert_eq!(manifest.resources[0].options["size"], "db.t2.large");
    assert!(manifest.unused.contains(&"services.scaler.scale.targets".to_owned()), "{:?}", manifest.unused);
}

#[test]
fn ports_come_in_three_forms() {
    let http = |port| Some(ServicePort { port, scheme: "http".into() });
    assert_eq!(web("port: 3000").port, http(3000));
    assert_eq!(web("port: \"3000\"").port, http(3000));
    assert_eq!(web("port: https:3000").port, Some(ServicePort { port: 3000, scheme: "https".into() }));
    assert_eq!(web("port:\n  port: 3000\n  scheme: tcp").port, Some(ServicePort { port: 3000, scheme: "tcp".into() }));
    let ports = web("ports:\n  - 5000/udp\n  - 5001").ports;
    assert_eq!(ports, [ServicePort { port: 5000, scheme: "udp".into() }, ServicePort { port: 5001, scheme: "tcp".into() }]);
}

#[test]
fn scale_comes_in_many_forms() {
    let bounds = |text: &str| {
        let scale = web(text).scale;
        (scale.min, scale.max)
    };
    assert_eq!(bounds("scale: 4"), (4, 4));
    assert_eq!(bounds("scale: 0"), (0, 0));
    assert_eq!(bounds("scale: 1-3"), (1, 3));
    assert_eq!(bounds("scale:\n  count: 2-4"), (2, 4));
    assert_eq!(bounds("scale:\n  count: {min: 2, max: 5}"), (2, 5));
    assert_eq!(bounds("scale:\n  min: 2\n  max: 5"), (2, 5));
    assert_eq!(bounds("scale:\n  cpu: 512"), (1, 1));
    let scale = web("scale: {count: 2, cpu: 128, memory: 1024, targets: {cpu: 70}}").scale;
    assert_eq!(scale, Scale { min: 2, max: 2, cpu: 128, memory: 1024, ..Scale::default() });
}

#[test]
fn environment_takes_defaults_requirements_and_everything() {
    let manifest = parse(
        "environment:\n  - GLOBAL=1\n  - BOTH=global\nservices:\n  web:\n    environment:\n      - NEEDED\n      - BOTH=web\n      - URL=a=b\n",
    );
    let service = &manifest.services[0];
    let missing = manifest.service_environment(service, &BTreeMap::new()).unwrap_err();
    assert_eq!(missing.to_string(), "required env: NEEDED");
    let release = BTreeMap::from([("NEEDED".to_owned(), "x".to_owned()), ("OTHER".to_owned(), "hidden".to_owned())]);
    let env = manifest.service_environment(service, &release).unwrap();
    let pairs: Vec<(&str, &str)> = env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(pairs, [("BOTH", "web"), ("GLOBAL", "1"), ("NEEDED", "x"), ("URL", "a=b")]);
    let all = parse("services:\n  web:\n    environment: [\"*\", {}]\n".replace(", {}", "").as_str());
    assert_eq!(all.service_environment(&all.services[0], &release).unwrap(), release);
    let map = parse("services:\n  web:\n    environment:\n      A: 1\n      B:\n");
    assert_eq!(map.services[0].environment, [EnvEntry::Default("A".into(), "1".into()), EnvEntry::Required("B".into())]);
}

#[test]
fn all_missing_names_of_all_services_are_told_at_once() {
    let manifest = parse("services:\n  a:\n    environment: [Z, B]\n  b:\n    environment: [A, B]\n");
    assert_eq!(manifest.check_environment(&BTreeMap::new()).unwrap_err().names, ["A", "B", "Z"]);
}

#[test]
fn unknown_keys_are_named_with_their_place_and_a_guess() {
    assert_eq!(refusal("services:\n  web:\n    prot: 3000\n"), "line 3, column 5: unknown key services.web.prot; did you mean port?");
    assert_eq!(refusal("servicess:\n  web:\n"), "line 1, column 1: unknown key servicess; did you mean services?");
    assert!(refusal("services:\n  web:\n    health: {path: /, colour: red}\n").starts_with(
        "line 3, column 23: unknown key services.web.health.colour; known here: disable, grace, interval, path, port, timeout"
    ));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let cases = [
        ("foo", "line 1, column 1: a manifest is a map with the key services"),
        (
            "services:\n  web_x:\n",
            "line 2, column 3: services.web_x: invalid name: it must begin with a lower-case letter and have only lower-case letters, digits and dashes",
        ),
        ("resources:\n  database:\n", "line 2, column 3: resources.database: resource type can not be blank"),
        (
            "services:\n  web:\n    port: 99999\n",
            "line 3, column 11: services.web.port: must be a whole number from 1 to 65535, not \"99999\"",
        ),
        ("services:\n  web:\n    scale: 5-2\n", "line 3, column 12: services.web.scale: the least, 5, is more than the most, 2"),
        (
            "services:\n  web:\n    health: health\n",
            "line 3, column 13: services.web.health: must be a path that begins with /, not \"health\"",
        ),
        ("services:\n  web:\n    sticky: maybe\n", "line 3, column 13: services.web.sticky: must be true or false, not \"maybe\""),
        ("services:\n  web:\n    port: 1\n    port: 2\n", "line 4, column 5: key given twice: port"),
        ("services: [web]\n", "line 1, column 11: services: must be a map"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: a second document; a manifest has only one"),
        (
            "timers:\n  t: {service: web, schedule: daily}\n",
            "line 2, column 6: timers.t: invalid schedule expression: daily: it has five fields: minute, hour, day of the month, month, day of the week",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refusal(text), expected, "{text}");
    }
    assert!(refusal("services:\n  web: [\n").starts_with("line "));
}

#[test]
fn a_kilobyte_of_aliases_does_not_become_a_gigabyte() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let before = format!("*a{}", level - 1);
        let _ = writeln!(bomb, "a{level}: &a{level} [{}]", vec![before; 10].join(", "));
    }
    assert!(refusal(&bomb).contains("more than 50000 values"), "{}", refusal(&bomb));
    assert!(refusal("a: &a [*a]\n").contains("alias"));
}

#[test]
fn size_and_depth_are_bounded() {
    assert!(refusal(&format!("params:\n  A: {}\n", "x".repeat(300_000))).contains("larger than 256 KiB"));
    assert!(refusal(&format!("params: {}", "[".repeat(100))).contains("nested deeper"));
    assert!(refusal(&format!("params: {}", "{a: ".repeat(100))).contains("nested deeper"));
}

#[test]
fn the_worst_texts_of_full_size_are_answered_soon() {
    for part in
        ["[", "{a: ", "- ", "? ", "&a ", "*a ", "\n", "a: b\n", " ", "'", "\"", "\\", "#", "|\n", "!", "%", "a", "<<: ", "-\n", "[a,"]
    {
        let text = part.repeat(SIZE_CAP_FOR_TESTS / part.len());
        let started = std::time::Instant::now();
        let _ = Manifest::parse(&text);
        assert!(started.elapsed() < seconds(10), "{part:?} took {:?}", started.elapsed());
    }
    let keys: String = (0..24_000).fold(String::new(), |mut text, index| {
        let _ = writeln!(text, "k{index}:");
        text
    });
    let started = std::time::Instant::now();
    assert!(refusal(&keys).contains("unknown key k0"));
    assert!(started.elapsed() < seconds(10));
}

#[test]
fn hostile_texts_are_refused_or_read_but_never_panic() {
    let corpus = [
        "",
        "\0",
        "\u{feff}services:",
        "---",
        "...",
        "%YAML 9.9\n---\n",
        "? a\n: b",
        "- - - -",
        "&a",
        "*a",
        "!!binary x",
        "\t- x",
        "services:\n\tweb:",
        "<<: *x",
        "services: &s\n  web: *s",
        "<<: [{services: {}}, 1]",
        "{{{}}}: 1",
        "[]: {}",
        "services:\n  web:\n    command: [\"\\0\"]",
        "services:\n  web:\n    port: -1",
        "services:\n  web:\n    scale: 1-2-3",
        "services:\n  web:\n    port: 99999999999999999999",
        "services:\n  web:\n    environment: {a=b: c}",
        "a: |\n\u{2028}",
        "\"\\uD800\"",
        "services:\n  web:\n    environment: ['=x']",
        "services:\n  web: {build: {path: [}}",
        "'",
        "\"",
        "a: 'b",
        "- >-\n  -",
        "!<",
        "&",
        "*",
        "#\r\r\n",
    ];
    for text in corpus {
        let _ = Manifest::parse(text);
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn any_soup_of_yaml_is_read_or_refused(parts in proptest::collection::vec(prop_oneof![
        Just("services:"), Just("\n"), Just("  "), Just("web"), Just(": "), Just("- "), Just("&a "), Just("*a"), Just("<<"), Just("["), Just("]"),
        Just("{"), Just("}"), Just(","), Just("|"), Just(">"), Just("'"), Just("\""), Just("\\"), Just("#"), Just("? "), Just("!!str "), Just("---"),
        Just("port"), Just("scale"), Just("1-3"), Just("health"), Just("environment"), Just("K=V"), Just("\t"), Just("%"), Just("é"), Just("${X}"),
    ], 0..60)) {
        let _ = Manifest::parse(&parts.concat());
    }

    #[test]
    fn a_manifest_with_anything_changed_is_read_or_refused(at in 0_usize..2000, with in "\\PC{0,3}") {
        let mut text = include_str!("../../tests/manifests/full.yml").to_owned();
        let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        text.insert_str(at, &with);
        let _ = Manifest::parse(&text);
    }
}

#[test]
fn a_day_that_never_comes_is_no_schedule() {
    let text = |schedule: &str| format!("services: {{web: }}\ntimers:\n  t: {{service: web, schedule: \"{schedule}\"}}\n");
    let new = |schedule: &str| Manifest::parse_new(&text(schedule), &BTreeMap::new());
    for never in ["0 0 30 2 *", "0 0 31 4,6,9,11 *"] {
        let refused = new(never).unwrap_err().to_string();
        assert_eq!(refused, format!("line 3, column 6: timers.t: invalid schedule expression: {never}: that day never comes"));
        assert!(Manifest::parse(&text(never)).is_ok(), "a release that runs with it runs on");
    }
    assert!(new("0 0 29 2 *").is_ok() && new("0 0 31 2 1").is_ok(), "the last one comes on every Monday of February");
}

#[test]
fn timers_are_due_in_utc_as_their_schedule_says() {
    let timer = |schedule: &str| {
        let text = format!("services: {{web: }}\ntimers:\n  t: {{service: web, schedule: \"{schedule}\"}}\n");
        Manifest::parse(&text).map(|manifest| manifest.timers[0].clone())
    };
    let next = |schedule: &str, since: &str| timer(schedule).unwrap().next(since.parse().unwrap()).map(|next| next.to_string());
    for (schedule, since, due) in [
        ("* * * * *", "2026-11-27T20:00:00Z", "2026-11-27T20:01:00Z"),
        ("*/15 * * * ?", "2026-11-27T20:59:59Z", "2026-11-27T21:00:00Z"),
        ("0 3 * * *", "2026-11-27T20:00:00Z", "2026-11-28T03:00:00Z"),
        // AWS's sixth field is a year, of which the originals make nothing.
        ("30 4 1 * ? *", "2026-11-27T20:00:00Z", "2026-12-01T04:30:00Z"),
        // Day of the month or of the week, whichever comes first.
        ("0 0 13 * FRI", "2026-11-27T20:00:00Z", "2026-12-04T00:00:00Z"),
        ("0 0 * * 0", "2026-11-27T20:00:00Z", "2026-11-29T00:00:00Z"),
        ("0 0 29 2 *", "2026-11-27T20:00:00Z", "2028-02-29T00:00:00Z"),
    ] {
        assert_eq!(next(schedule, since).as_deref(), Some(due), "{schedule}");
    }
    assert_eq!(next("0 0 31 2 *", "2026-11-27T20:00:00Z"), None);
    for bad in ["60 * * * *", "* * * *", "0 0 0 0 0 0 0", "a b c d e"] {
        assert!(timer(bad).unwrap_err().message.contains("invalid schedule expression"), "{bad}");
    }
    let unknown = Manifest::parse("services: {web: }\ntimers:\n  t: {service: api, schedule: \"* * * * *\"}\n").unwrap_err();
    assert!(unknown.to_string().contains("line 3") && unknown.message.contains("there is no service api"), "{unknown}");
    let odd =
        Manifest::parse("services: {web: }\ntimers:\n  t: {service: web, schedule: \"* * * * *\", concurrency: Maybe}\n").unwrap_err();
    assert!(odd.message.contains("give Forbid, Allow or Replace"), "{odd}");
}

fn new(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse_new(text, &BTreeMap::new())
}

#[test]
fn names_of_nothing_are_told_with_their_place_and_a_guess() {
    let text = "resources:\n  main-db: {type: postgres}\nservices:\n  web:\n    resources:\n      - main-db:URL\n      - mian-db\n    links: [ap]\n  api:\n";
    let manifest = parse(text);
    let refused: Vec<String> = manifest.refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        refused,
        [
            "line 7, column 9: services.web.resources[1]: there is no resource mian-db; did you mean main-db?",
            "line 8, column 13: services.web.links[0]: there is no service ap; did you mean api?",
        ]
    );
    assert_eq!(new(text).unwrap_err().line, 7);
    assert!(new(&text.replace("mian", "main").replace("[ap]", "[api]")).is_ok());
    assert!(new("services: {web: {resources: [db]}}").unwrap_err().message.ends_with("there is no resource db"));
}

#[test]
fn rules_that_would_not_hold_are_refused_and_do_not_stop_what_runs() {
    for (key, text) in [
        ("accessControl", "accessControl: {awsPodIdentity: {policyArns: [x]}}"),
        ("securityContext", "securityContext: {runAsNonRoot: true}"),
        ("initContainer", "initContainer: {command: migrate}"),
        ("configMounts", "configMounts: [{id: a, dir: /b}]"),
        ("volumeOptions", "volumeOptions: [{emptyDir: {id: a, mountPath: /b}}]"),
        ("lifecycle.postStart", "lifecycle: {postStart: x}"),
    ] {
        let text = format!("services:\n  web:\n    {text}\n");
        let refused = new(&text).unwrap_err();
        assert!(refused.message.starts_with(&format!("services.web.{key}: not on this Rack: ")), "{refused}");
        assert_eq!(refused.line, 3);
        assert!(Manifest::parse(&text).is_ok());
    }
    assert_eq!(new("services: {web: {lifecycle: {preStop: x}}}").unwrap().unused, ["services.web.lifecycle.preStop"]);
}

#[test]
fn a_whitelist_names_networks_and_never_nobody() {
    let networks = |text: &str| web(text).allowed.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(networks("whitelist: 10.0.0.0/8, 192.0.2.7,fd00::/8"), ["10.0.0.0/8", "192.0.2.7/32", "fd00::/8"]);
    assert_eq!(networks("whitelist:\n  - ::1\n  - 0.0.0.0/0"), ["::1/128", "0.0.0.0/0"]);
    for bad in ["10.0.0.0/33", "example.org", "\"\"", "\",\"", "10.0.0", "\"::ffff:10.0.0.0/104\""] {
        assert!(refusal(&format!("services:\n  web:\n    whitelist: {bad}\n")).contains("services.web.whitelist: n"), "{bad}");
    }
}

#[test]
fn what_has_no_effect_is_listed_where_it_is_given() {
    let unused = |text: &str| {
        let mut unused = parse(&format!("params: {{A: b}}\nservices:\n  web: {text}\n")).unused;
        unused.retain(|key| key != "params");
        unused
    };
    assert!(unused("{port: 80, scale: 2, sticky: false, deployment: {maximum: 100}}").is_empty());
    assert_eq!(
        unused("{sticky: true, timeout: 5, ports: [1], scale: 1-3, deployment: {minimum: 25, maximum: 150}}"),
        [
            "services.web.sticky",
            "services.web.timeout",
            "services.web.ports",
            "services.web.scale (its upper bound)",
            "services.web.deployment.minimum",
            "services.web.deployment.maximum (above 100)",
        ]
    );
    assert!(unused("{port: \"grpc:80\"}")[0].starts_with("services.web.port by host name"));
    assert!(unused("{port: \"https:80\"}").is_empty() && unused("{port: \"grpc:80\", internal: true}").is_empty());
    assert_eq!(parse("params: {A: b}\nservices:\n  web:\n").unused, ["params"]);
}

#[test]
fn a_name_for_what_the_router_does_not_speak_is_refused_in_a_new_release() {
    let text = |port: &str, more: &str| format!("services:\n  web:\n    domain: a.example.com\n    port: {port}\n{more}");
    for port in ["grpc:80", "tcp:80", "{port: 80, scheme: GRPC}"] {
        let refused = new(&text(port, "")).unwrap_err();
        assert_eq!(refused.line, 3, "{port}");
        assert!(refused.message.starts_with("services.web.domain: not on this Rack: the router speaks HTTP/1.1"), "{refused}");
        // One that runs already runs on.
        assert!(Manifest::parse(&text(port, "")).is_ok() && new(&text(port, "    internal: true\n")).is_ok());
    }
    for port in ["80", "http:80", "HTTPS:80"] {
        assert!(new(&text(port, "")).is_ok(), "{port}");
    }
}

#[test]
fn inside_and_outside_is_outside_too() {
    assert!(web("internal: true").internal);
    assert!(!web("internalAndExternal: true").internal);
    assert!(!web("internal: true\ninternalAndExternal: true").internal);
    assert!(web("tls: {redirect: false}").plain_http && !web("tls: {}").plain_http && !web("port: 80").plain_http);
    assert_eq!(web("labels: {team: shop}").labels["team"], "shop");
    assert!(refusal("services: {web: {labels: {convox.rack: x}}}").contains("the Rack's"));
}
