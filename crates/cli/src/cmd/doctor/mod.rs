//! `doctor`: walks the way that every command goes, step by step, and says at which one it ends and what to do there. It changes nothing,
//! trusts nothing new, and sends the key only where a command would.

mod here;
mod there;

use serde::Serialize;

use crate::Ctx;
use crate::args::RackFlag;
use crate::error::Failure;
use crate::table::Table;
use crate::target;

/// The steps, in the order in which they are taken.
const STEPS: [&str; 8] = ["configuration", "target", "proxy", "network", "certificate", "clock", "key", "rack"];
/// Something keeps commands from working.
const FAULT: u8 = 1;
/// Nothing does, but something is to be looked after.
const WARNING: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    Ok,
    Warning,
    Fault,
    /// Not reached, because of a fault before.
    Skipped,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
            Self::Skipped => "skipped",
        }
    }
}

/// One step, or one of several things that were found at it.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    found: String,
    /// What to do about it.
    advice: Option<String>,
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, check: &'static str, status: Status, found: impl Into<String>, advice: Option<String>) {
        self.0.push(Finding { check, status, found: found.into(), advice });
    }

    fn ok(&mut self, check: &'static str, found: impl Into<String>) {
        self.add(check, Status::Ok, found, None);
    }

    fn warn(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Status::Warning, found, Some(advice.into()));
    }

    fn fault(&mut self, check: &'static str, found: impl Into<String>, advice: impl Into<String>) {
        self.add(check, Status::Fault, found, Some(advice.into()));
    }

    fn failure(&mut self, check: &'static str, failure: &Failure) {
        self.add(check, Status::Fault, failure.to_string(), failure.hint_text().map(str::to_owned));
    }

    /// Every step is named, also those that were not reached.
    fn complete(mut self) -> Vec<Finding> {
        for (place, check) in STEPS.into_iter().enumerate() {
            if self.0.iter().all(|finding| finding.check != check) {
                let next = self.0.iter().position(|finding| STEPS.iter().skip(place).any(|later| *later == finding.check));
                let skipped = Finding { check, status: Status::Skipped, found: "not reached".to_owned(), advice: None };
                self.0.insert(next.unwrap_or(self.0.len()), skipped);
            }
        }
        self.0
    }
}

#[derive(Serialize)]
struct Report<'a> {
    healthy: bool,
    checks: &'a [Finding],
}

pub(super) async fn run(ctx: &Ctx, rack: &RackFlag) -> Result<u8, Failure> {
    let mut findings = Findings::default();
    here::configuration(&ctx.settings, &mut findings);
    match target::resolve(&ctx.env, &ctx.settings, rack.rack.as_deref()) {
        Ok(target) => {
            let lost: Vec<String> = target.overruled.iter().map(|other| format!("; not {} ({})", other.value, other.source)).collect();
            let source = target.rack.as_ref().map_or(&target.host.source, |rack| &rack.source);
            findings.ok("target", format!("{} ({source}){}", target.describe(), lost.concat()));
            there::look(ctx, target, &mut findings).await;
        }
        Err(failure) => findings.failure("target", &failure),
    }
    let checks = findings.complete();
    let worst = |status: Status| checks.iter().any(|finding| finding.status == status);
    let code = if worst(Status::Fault) {
        FAULT
    } else if worst(Status::Warning) {
        WARNING
    } else {
        0
    };
    report(ctx, code == 0, &checks)?;
    Ok(code)
}

fn report(ctx: &Ctx, healthy: bool, checks: &[Finding]) -> Result<(), Failure> {
    if ctx.out.is_json() {
        return ctx.out.json(&Report { healthy, checks });
    }
    let mut table = Table::new(&["CHECK", "STATUS", "FOUND"]);
    for Finding { check, status, found, .. } in checks {
        // Servers' words must not drive the terminal.
        let found: String = found.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        table.row([check, status.as_str(), &found]);
    }
    ctx.out.table(&table)?;
    for finding in checks {
        if let Some(advice) = &finding.advice {
            let advice: String = advice.chars().filter(|char| !char.is_control()).collect();
            ctx.out.line(&format!("\n{}: {advice}", finding.check))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_named_in_its_place() {
        let mut findings = Findings::default();
        findings.ok("configuration", "");
        findings.fault("target", "nobody is logged in", "log in");
        let names: Vec<(&str, Status)> = findings.complete().iter().map(|finding| (finding.check, finding.status)).collect();
        assert_eq!(names.iter().map(|(name, _)| *name).collect::<Vec<_>>(), STEPS);
        assert!(names.iter().skip(2).all(|(_, status)| *status == Status::Skipped));
        let mut findings = Findings::default();
        findings.ok("network", "");
        findings.warn("key", "", "");
        findings.warn("key", "", "");
        let names: Vec<&str> = findings.complete().iter().map(|finding| finding.check).collect();
        assert_eq!(names, ["configuration", "target", "proxy", "network", "certificate", "clock", "key", "key", "rack"]);
    }
}
