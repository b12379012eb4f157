//! `convox doctor` at a real Console with a real Rack behind it.

use convox_testkit::{Cli, Stack};

/// Exit code, and status with words of each step.
fn findings(cli: &Cli) -> (i32, Vec<(String, String)>) {
    let ran = cli.run(&["doctor", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let line = |one: &serde_json::Value| (text(&one["check"]), format!("{}: {}", text(&one["status"]), text(&one["found"])));
    (ran.code, report["checks"].as_array().unwrap().iter().map(line).collect())
}

fn of<'f>(all: &'f [(String, String)], check: &str) -> &'f str {
    all.iter().find(|(name, _)| name == check).map_or("", |(_, found)| found)
}

#[test]
fn a_rack_that_is_down_and_a_key_that_was_revoked_are_told_apart() {
    let mut stack = Stack::start().unwrap();
    let cli = stack.cli();
    let (code, all) = findings(&cli);
    assert_eq!(code, 0, "{all:?}");
    assert!(of(&all, "clock").contains("as the server's") && of(&all, "certificate").contains("as remembered"), "{all:?}");
    assert!(of(&all, "rack").contains("acme/main is running") && of(&all, "key").contains("admin@example.com"), "{all:?}");
    assert_eq!(findings(&stack.direct()).0, 0, "straight at the Rack");

    stack.rack.kill();
    let (code, all) = findings(&cli);
    assert!(code == 1 && of(&all, "key").starts_with("ok"), "{all:?}");
    assert!(of(&all, "rack").starts_with("fault: ") && of(&all, "rack").contains("the Rack acme/main behind it does not"), "{all:?}");

    stack.admin(&["key", "regenerate", "--email", "admin@example.com"]).unwrap();
    let (code, all) = findings(&cli);
    assert!(code == 1 && of(&all, "key").contains("was revoked") && of(&all, "rack").starts_with("skipped"), "{all:?}");
    stack.console.kill();
    let (code, all) = findings(&cli);
    assert!(code == 1 && of(&all, "network").contains("refused"), "{all:?}");
}
