//! All of it as text, in Prometheus' exposition format 0.0.4.

use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering::Relaxed;

use convox_wire::routes::Effect;

use super::{BOUNDS, Count, Decision, Meters, Timing};
use crate::audit::Standing;
use crate::state::App;

/// Content type of the text.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
const PREFIX: &str = "convox_console_";

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        let name = format!("{PREFIX}{name}");
        self.head(&name, kind, help);
        self.line(&name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, meters: &Meters, what: Timing) {
        let name = format!("{PREFIX}{name}");
        self.head(&name, "histogram", help);
        let (buckets, sum) = meters.times(what);
        let mut so_far = 0;
        for (at, count) in buckets.iter().enumerate() {
            so_far += count;
            let bound = BOUNDS.get(at).map_or_else(|| "+Inf".to_owned(), |micros| (*micros as f64 / 1e6).to_string());
            self.line(&format!("{name}_bucket"), &[("le", &bound)], so_far);
        }
        self.line(&format!("{name}_sum"), &[], sum);
        self.line(&format!("{name}_count"), &[], so_far);
    }
}

/// What this server is and does. Reads memory only: it is there when the database is not.
pub(super) fn all(app: &App) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    let meters = &app.meters;
    text.head(&format!("{PREFIX}info"), "gauge", "This program.");
    text.line(&format!("{PREFIX}info"), &[("version", env!("CARGO_PKG_VERSION")), ("node", app.snapshots.node())], 1);

    requests(&mut text, meters);
    text.histogram("request_decision_seconds", "Who is it, for which Rack, and may they: from memory.", meters, Timing::Decision);
    text.histogram("request_audit_seconds", "Until the audit event of a request is on the disk.", meters, Timing::Audit);
    text.histogram("request_upstream_seconds", "From there to the head of the Rack's answer.", meters, Timing::Upstream);
    text.histogram("request_seconds", "From the head of a request to the last byte of its answer, without streams.", meters, Timing::Whole);

    let proxy = convox_proxy::stats();
    text.one("connections", "gauge", "Connections of callers, and requests of HTTP/2.", proxy.callers);
    text.one("streams", "gauge", "Open WebSockets.", proxy.tunnels);
    text.one("upstream_connections_idle", "gauge", "Connections to Racks that wait for a request.", proxy.idle);
    text.one("upstream_connections_opened_total", "counter", "Connections to Racks that were opened.", proxy.opened);
    text.one("upstream_connections_reused_total", "counter", "Requests that went out on a connection that was there.", proxy.reused);
    text.one("upstream_connections_failed_total", "counter", "Connections to Racks that could not be opened.", proxy.failed);

    let snapshot = app.snapshots.now();
    text.one("feed_position", "gauge", "Position of the feed of changes that memory stands for.", snapshot.seq);
    let lag = app.snapshots.since_look().as_secs_f64();
    text.one("feed_lag_seconds", "gauge", "Since the feed of changes was last seen; memory is not trusted after 5.", lag);
    text.one("feed_told", "gauge", "Whether the database tells of changes by itself.", u8::from(app.snapshots.is_told()));
    text.one(
        "snapshot_trusted",
        "gauge",
        "Whether memory may be trusted; without it every request is refused.",
        u8::from(app.snapshots.is_trusted()),
    );
    text.one("snapshot_age_seconds", "gauge", "Since memory last changed.", app.snapshots.age().as_secs_f64());
    text.one("snapshot_changes_total", "counter", "Changes that memory followed.", app.snapshots.changes());
    let (keys, people, racks) = snapshot.sizes();
    text.one("snapshot_keys", "gauge", "Keys and sessions in memory.", keys);
    text.one("snapshot_users", "gauge", "Users in memory.", people);
    text.one("snapshot_racks", "gauge", "Racks in memory.", racks);
    text.one(
        "sealed_put_back",
        "gauge",
        "Racks whose sealed password is not the present one: somebody put an older one back. They are refused.",
        snapshot.put_back().count(),
    );

    text.one("audit_queue", "gauge", "Entries that wait to be written to the audit log.", app.audit.waiting());
    text.one("audit_queue_limit", "gauge", "Entries that may wait; beyond that, requests are refused.", crate::audit::QUEUE);
    text.one("audit_written_total", "counter", "Entries that were written to the audit log.", meters.count(Count::AuditWritten));
    text.one(
        "audit_refused_total",
        "counter",
        "Requests that were refused because their event could not be written.",
        meters.count(Count::AuditRefused),
    );
    text.one("audit_lost_total", "counter", "Notes of refusals and outcomes that were left out.", app.audit.lost());
    text.histogram("audit_commit_seconds", "One transaction of the audit log.", meters, Timing::Commit);
    second_log(&mut text, app);

    text.one(
        "guesses_refused_total",
        "counter",
        "Refused keys that were too many of their network or their beginning.",
        meters.count(Count::Guess),
    );
    text.one("guesses_watched", "gauge", "Networks and beginnings of keys that are counted now.", app.strangers.watched());
    text.one("rolls_open", "gauge", "Rolls of Rack passwords under way, as counted each minute.", meters.rolls.load(Relaxed));

    let (sent, lost) = app.traces.as_ref().map(crate::traces::Traces::counts).unwrap_or_default();
    text.one("traces_sent_total", "counter", "Requests that the collector of traces took.", sent);
    text.one("traces_lost_total", "counter", "Requests that it was not told of: too many at a time, or it did not take them.", lost);

    let readiness = crate::readiness::look(app);
    text.one("ready", "gauge", "Whether this server takes requests.", u8::from(readiness.is_ready()));
    text.one("draining", "gauge", "Whether this server ends.", u8::from(app.is_draining()));
    for (name, kind, help, value) in convox_meters::process::all() {
        text.head(name, kind, help);
        text.line(name, &[], value);
    }
    text.0
}

/// All zero where there is none.
fn second_log(text: &mut Text, app: &App) {
    let none = Standing::default();
    let (second, meters) = (app.audit.second().unwrap_or(&none), &app.meters);
    let is_used = u8::from(second.is_used());
    text.one("audit_spill_used", "gauge", "Whether the database does not take events, so that they go to the second log.", is_used);
    text.one("audit_spill_waiting", "gauge", "Entries of the second log that are not in the database yet.", second.waiting());
    text.one("audit_spill_bytes", "gauge", "Bytes of the second log.", second.bytes());
    text.one("audit_spill_limit_bytes", "gauge", "Bytes that it may have; beyond that, requests are refused.", second.limit());
    text.one("audit_spill_refused", "gauge", "Entries of the second log that the database refuses.", second.left());
    text.one("audit_spill_faults", "gauge", "Faults in files of the second log: somebody changed them.", second.faults());
    text.one("audit_spilled_total", "counter", "Entries that went to the second log.", meters.count(Count::AuditSpilled));
    text.one(
        "audit_carried_total",
        "counter",
        "Entries that were carried from there into the database.",
        meters.count(Count::AuditCarried),
    );
}

fn requests(text: &mut Text, meters: &Meters) {
    let name = format!("{PREFIX}requests_total");
    text.head(&name, "counter", "Requests for Racks by what they would do and how they were decided.");
    for effect in std::iter::once(None).chain(Effect::ALL.map(Some)) {
        for decision in Decision::ALL {
            let labels = [("effect", effect.map_or("unknown", Effect::as_str)), ("decision", decision.as_str())];
            text.line(&name, &labels, meters.requests(effect, decision));
        }
    }
    let racks = meters.racks.all();
    for (what, help, of) in [
        ("rack_requests_total", "Requests that went to a Rack, by its id.", true),
        ("rack_failures_total", "Those that had no answer of the Rack.", false),
    ] {
        let name = format!("{PREFIX}{what}");
        text.head(&name, "counter", help);
        for (id, requests, failures) in &racks {
            text.line(&name, &[("rack", id)], if of { requests } else { failures });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_quoted() {
        let mut text = Text(String::new());
        text.line("a", &[("b", "c\"d\\e\nf"), ("g", "h")], 1);
        assert_eq!(text.0, "a{b=\"c\\\"d\\\\e\\nf\",g=\"h\"} 1\n");
    }
}
