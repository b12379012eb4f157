//! Figures as JSON for machines and as a Markdown table for people.

use serde_json::json;

use crate::measure::median;
use crate::pace::Paced;
use crate::relay::{Series, Variant};

pub(crate) struct Conditions {
    pub(crate) machine: String,
    pub(crate) peers: String,
    pub(crate) wrk: String,
    pub(crate) rounds: usize,
    pub(crate) seconds: u64,
    pub(crate) connections: usize,
}

fn of(series: &Series, what: impl Fn(&crate::relay::Round) -> f64) -> Vec<f64> {
    series.rounds.iter().map(what).collect()
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

pub(crate) fn relay(conditions: &Conditions, all: &[Series]) -> (String, String) {
    let yardstick = |variant: Variant| {
        all.iter()
            .find(|series| series.variant == variant && series.contender == "nginx")
            .map_or(f64::NAN, |series| median(&of(series, |round| round.cpu)))
    };
    let figures: Vec<_> = all
        .iter()
        .map(|series| {
            let cpu = of(series, |round| round.cpu);
            json!({
                "variant": series.variant.name,
                "contender": series.contender,
                "requests": series.rounds.iter().map(|round| round.requests).sum::<u64>(),
                "requests_per_second": median(&of(series, |round| round.per_second)),
                "cpu_us_per_request": median(&cpu),
                "cpu_us_per_request_rounds": cpu,
                "cpu_times_nginx": median(&cpu) / yardstick(series.variant),
                "p50_ms": median(&of(series, |round| round.p50)),
                "p99_ms": median(&of(series, |round| round.p99)),
                "p999_ms": median(&of(series, |round| round.p999)),
                "at_half": series.paced,
            })
        })
        .collect();
    let json = json!({
        "machine": conditions.machine,
        "peers": conditions.peers,
        "wrk": conditions.wrk,
        "rounds": conditions.rounds,
        "seconds_per_round": conditions.seconds,
        "connections": conditions.connections,
        "figures": figures,
    });
    let mut table = format!(
        "{}; {}; {} interleaved rounds of {} s, {} kept connections, replies of a quarter of a kilobyte; medians.\n\n\
         | asked | contender | requests/s | CPU us/request | range | times nginx | p50 ms | p99 ms | p99.9 ms |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
        conditions.machine, conditions.peers, conditions.rounds, conditions.seconds, conditions.connections
    );
    for series in all {
        let cpu = of(series, |round| round.cpu);
        let (low, high) = range(&cpu);
        table.push_str(&format!(
            "| {} | {} | {:.0} | {:.1} | {low:.1}-{high:.1} | {:.2} | {:.2} | {:.2} | {:.2} |\n",
            series.variant.title,
            series.contender,
            median(&of(series, |round| round.per_second)),
            median(&cpu),
            median(&cpu) / yardstick(series.variant),
            median(&of(series, |round| round.p50)),
            median(&of(series, |round| round.p99)),
            median(&of(series, |round| round.p999)),
        ));
    }
    let paced = |series: &Series, what: fn(&Paced) -> f64| median(&series.paced.iter().map(what).collect::<Vec<_>>());
    if all.iter().any(|series| !series.paced.is_empty()) {
        table.push_str(
            "\nAt half of the requests/s that nginx took, sent on time whatever the answers take; whoever cannot take them is left out.\n\n\
             | asked | contender | requests/s | p50 ms | p99 ms | p99.9 ms |\n|---|---|--:|--:|--:|--:|\n",
        );
    }
    for series in all.iter().filter(|series| !series.paced.is_empty()) {
        table.push_str(&format!(
            "| {} | {} | {:.0} | {:.2} | {:.2} | {:.2} |\n",
            series.variant.title,
            series.contender,
            paced(series, |paced| paced.requests as f64) / conditions.seconds as f64,
            paced(series, |paced| paced.p50),
            paced(series, |paced| paced.p99),
            paced(series, |paced| paced.p999),
        ));
    }
    (format!("{json:#}\n"), table)
}
