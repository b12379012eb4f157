//! What a request costs when the Console knows ten keys and one Rack, and when it knows a million keys and 100,000 Racks; what it
//! keeps in memory for each; and how long a key that was revoked lives among them.
//!
//! The rows beyond a few hundred real ones are written into the database while the server is down: keys that nobody has, Racks
//! whose password does not open. To the server's memory they are rows like any other.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use sqlx::{ConnectOptions as _, Executor as _};

use crate::contender::{Contender, Ground, RACK, basic};
use crate::revoke::wire::Connection;
use crate::{Cores, Output, Turns, measure};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long)]
    console: PathBuf,
    #[command(flatten)]
    turns: Turns,
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 100_000)]
    racks: u64,
    /// Keys that are revoked while they are in use, at each size.
    #[arg(long, default_value_t = 50)]
    revoked: usize,
    #[command(flatten)]
    cores: Cores,
    #[command(flatten)]
    output: Output,
}

/// Keys that the load is spread over, where there are so many.
const USED: u64 = 500;

struct Size {
    keys: u64,
    racks: u64,
    users: u64,
}

struct Measured {
    size: Size,
    started: Duration,
    resident: u64,
    per_second: Vec<f64>,
    cpu: Vec<f64>,
    revoked: Vec<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let many = (arguments.keys / 10).max(1);
    let sizes = [
        Size { keys: 10, racks: 1, users: 1 },
        Size { keys: arguments.keys, racks: 1, users: many },
        Size { keys: 10, racks: arguments.racks, users: 1 },
        Size { keys: arguments.keys, racks: arguments.racks, users: many },
    ];
    let directory = tempfile::tempdir()?;
    let upstream_at = directory.path().join("upstream");
    std::fs::create_dir(&upstream_at)?;
    let (_upstream, port) = Ground::new(&upstream_at, arguments.cores.core, arguments.cores.load_core)?.upstream(true)?;
    let mut all = Vec::new();
    for (number, size) in sizes.into_iter().enumerate() {
        let at = directory.path().join(number.to_string());
        std::fs::create_dir(&at)?;
        // The upstream has the certificate of its own ground.
        std::fs::copy(upstream_at.join("cert.pem"), at.join("cert.pem"))?;
        std::fs::copy(upstream_at.join("key.pem"), at.join("key.pem"))?;
        let ground = Ground::found(&at, arguments.cores.core, arguments.cores.load_core)?;
        writeln!(std::io::stderr(), "{} keys, {} Racks", size.keys, size.racks)?;
        all.push(set_up(&ground, arguments, port, size)?);
    }
    for round in 0..=arguments.turns.rounds {
        for turn in 0..all.len() {
            let at = (round + turn) % all.len();
            let Some((contender, script, measured)) = all.get_mut(at) else { continue };
            let seconds = if round == 0 { 1 } else { arguments.turns.seconds };
            let before = measure::cpu(contender.pid())?;
            let url = format!("{}/apps?", contender.base);
            let load = measure::load(
                arguments.cores.load_core,
                &url,
                arguments.turns.connections,
                Duration::from_secs(seconds),
                &[],
                Some(script),
            )?;
            let used = measure::cpu(contender.pid())? - before;
            if round > 0 {
                measured.per_second.push(load.requests as f64 / load.seconds);
                measured.cpu.push(used as f64 / 1000.0 / load.requests as f64);
            }
        }
    }
    for (contender, _, measured) in &mut all {
        measured.resident = measure::resident(contender.pid())?;
        measured.revoked = revocations(contender, &directory.path().join("upstream"), arguments.revoked)?;
    }
    let all: Vec<Measured> = all.into_iter().map(|(_, _, measured)| measured).collect();
    report(arguments, &all)
}

fn connect(contender: &Contender, certificate_of: &Path) -> anyhow::Result<Connection> {
    let fingerprint = Ground::found(certificate_of, 0, 0)?.fingerprint;
    Connection::open(contender.base.rsplit('/').next().unwrap_or_default(), &fingerprint)
}

/// A key, as its id and as what is shown.
fn make_key(connection: &mut Connection, owner: &str, name: &str) -> anyhow::Result<(String, String)> {
    let reply = connection.ask("POST", "/api/v1/keys", owner, &json!({ "name": name }).to_string())?;
    let made: Value =
        serde_json::from_str(&reply.body).with_context(|| format!("a key could not be made: {} {}", reply.status, reply.body))?;
    let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned).context("no key in the answer");
    Ok((text("id")?, text("api_key")?))
}

fn set_up(ground: &Ground, arguments: &Arguments, upstream: u16, size: Size) -> anyhow::Result<(Contender, PathBuf, Measured)> {
    let first = ground.console(&arguments.console, upstream)?;
    let owner = first.secret.clone();
    let mut connection = connect(&first, &ground.directory)?;
    let mut keys = vec![owner.clone()];
    for number in 1..size.keys.min(USED) {
        keys.push(make_key(&mut connection, &owner, &format!("bench-{number}"))?.1);
    }
    drop(connection);
    drop(first);
    let data = ground.path("console");
    fill(&data, &size, keys.len() as u64)?;
    let began = Instant::now();
    let (mut contender, _) = ground.serve(&arguments.console, &data)?;
    let started = began.elapsed();
    contender.secret = owner;
    let script = ground.directory.join("keys.lua");
    let list: Vec<String> = keys.iter().map(|key| format!("'{}'", basic(key))).collect();
    std::fs::write(
        &script,
        format!(
            "local keys = {{{}}}\nlocal made = {{}}\nlocal at = 0\n\
             function init(args)\n  for i, key in ipairs(keys) do\n    made[i] = wrk.format('GET', '/apps?', {{ ['Authorization'] = key, ['Rack'] = '{RACK}', ['Version'] = 'dev', \
             ['User-Agent'] = 'convox.go/dev', ['Accept'] = '*/*' }})\n  end\nend\n\
             function request()\n  at = at % #made + 1\n  return made[at]\nend\n",
            list.join(",")
        ),
    )?;
    let measured = Measured { size, started, resident: 0, per_second: Vec::new(), cpu: Vec::new(), revoked: Vec::new() };
    Ok((contender, script, measured))
}

/// Writes the rows that are missing, while no server runs.
fn fill(data: &str, size: &Size, keys: u64) -> anyhow::Result<()> {
    let numbers = |count: u64| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})");
    let id = |kind: u8| format!("'019a{kind:04x}-0000-7000-8000-' || printf('%012x', i)");
    let now = "CAST(unixepoch('subsec') * 1000 AS INTEGER)";
    let mut statements = Vec::new();
    if size.users > 1 {
        let others = size.users - 1;
        statements.push(format!(
            "INSERT INTO users (id, email, created_ms) {} SELECT {}, 'member-' || i || '@example.com', {now} FROM n",
            numbers(others),
            id(1)
        ));
        statements.push(format!(
            "INSERT INTO members (org_id, user_id, role, created_ms, email) {} SELECT (SELECT id FROM orgs), {}, 'developer', {now}, 'member-' || i || '@example.com' FROM n",
            numbers(others),
            id(1)
        ));
    }
    if size.keys > keys {
        let (more, owners) = (size.keys - keys, size.users.saturating_sub(1).max(1));
        statements.push(format!(
            "INSERT INTO keys (id, user_id, kind, name, hash, last4, created_ms) {} SELECT {}, '019a0001-0000-7000-8000-' || printf('%012x', i % {owners} + 1), 'user', 'key-' || i, randomblob(32), 'abcd', {now} FROM n",
            numbers(more),
            id(2)
        ));
    }
    if size.racks > 1 {
        statements.push(format!(
            "INSERT INTO racks (id, org_id, name, provider, host, pin, password, generation, created_ms, password_ms) \
             {} SELECT {}, org_id, 'rack-' || i, provider, host, pin, password, 1, {now}, {now} FROM n, racks WHERE racks.name = 'rack'",
            numbers(size.racks - 1),
            id(3)
        ));
    }
    // The server reads everything when it starts; it need not follow these one by one.
    statements.push("DELETE FROM changes".to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut database = sqlx::sqlite::SqliteConnectOptions::new().filename(Path::new(data).join("console.db")).connect().await?;
        database.execute("BEGIN IMMEDIATE").await?;
        for statement in &statements {
            database.execute(sqlx::AssertSqlSafe(statement.as_str())).await.with_context(|| statement.clone())?;
        }
        database.execute("COMMIT").await?;
        Ok(())
    })
}

/// Milliseconds from the answer to the revocation of a key to the first request that is refused. 0: the next one was.
fn revocations(contender: &Contender, certificate_of: &Path, count: usize) -> anyhow::Result<Vec<f64>> {
    let mut owner = connect(contender, certificate_of)?;
    let mut user = connect(contender, certificate_of)?;
    let mut all = Vec::new();
    for number in 0..count {
        let (id, key) = make_key(&mut owner, &contender.secret, &format!("revoked-{number}"))?;
        let first = user.ask("GET", "/apps", &key, "")?;
        anyhow::ensure!(first.status == 200, "a new key was refused: {} {}", first.status, first.body);
        let gone = owner.ask("DELETE", &format!("/api/v1/keys/{id}"), &contender.secret, "")?;
        anyhow::ensure!(gone.status == 200, "the key could not be revoked: {} {}", gone.status, gone.body);
        let began = Instant::now();
        let mut last = 0.0;
        while user.ask("GET", "/apps", &key, "")?.status != 401 {
            last = began.elapsed().as_secs_f64() * 1000.0;
            anyhow::ensure!(last < 20_000.0, "the key lives 20 s after its revocation");
        }
        all.push(last);
    }
    Ok(all)
}

fn report(arguments: &Arguments, all: &[Measured]) -> anyhow::Result<()> {
    let base = all.first().context("nothing was measured")?;
    // Within each round: a machine that is slow for a while is slow for all of them.
    let times = |measured: &Measured| {
        measure::median(&measured.cpu.iter().zip(&base.cpu).map(|(cpu, smallest)| cpu / smallest).collect::<Vec<_>>())
    };
    let mut table = format!(
        "{}; {} interleaved rounds of {} s, {} kept connections over TLS, the load spread over up to {USED} keys; medians. Users: a tenth of the keys.\n\n\
         | keys | Racks | requests/s | CPU us/request | range | times the smallest | MB resident | start, ms | revoked to refused, p50 and max, ms |\n\
         |--:|--:|--:|--:|--:|--:|--:|--:|--:|\n",
        measure::machine(),
        arguments.turns.rounds,
        arguments.turns.seconds,
        arguments.turns.connections
    );
    let mut figures = Vec::new();
    for measured in all {
        let cpu = measure::median(&measured.cpu);
        let (low, high) = measured.cpu.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), &value| (low.min(value), high.max(value)));
        let worst = measured.revoked.iter().copied().fold(0.0, f64::max);
        table.push_str(&format!(
            "| {} | {} | {:.0} | {cpu:.1} | {low:.1}-{high:.1} | {:.2} | {:.1} | {:.0} | {:.1}, {worst:.1} |\n",
            measured.size.keys,
            measured.size.racks,
            measure::median(&measured.per_second),
            times(measured),
            measured.resident as f64 / 1_048_576.0,
            measured.started.as_secs_f64() * 1000.0,
            measure::median(&measured.revoked),
        ));
        figures.push(json!({
            "keys": measured.size.keys, "racks": measured.size.racks, "users": measured.size.users,
            "requests_per_second": measured.per_second, "cpu_us_per_request": measured.cpu, "times_smallest": times(measured),
            "bytes_resident": measured.resident, "start_ms": measured.started.as_secs_f64() * 1000.0, "revoked_to_refused_ms": measured.revoked,
        }));
    }
    if let [small, keys, racks, _] = all {
        let each = |more: &Measured, count: u64| (more.resident.saturating_sub(small.resident)) as f64 / count as f64;
        let (key, rack) = (each(keys, arguments.keys), each(racks, arguments.racks));
        table.push_str(&format!("\nMemory: {key:.0} bytes for each key with its share of a user, {rack:.0} bytes for each Rack.\n"));
    }
    let json = json!({ "machine": measure::machine(), "rounds": arguments.turns.rounds, "seconds_per_round": arguments.turns.seconds, "figures": figures });
    measure::write(&arguments.output.out.join("scale.json"), &format!("{json:#}\n"))?;
    measure::write(&arguments.output.out.join("scale.md"), &table)?;
    std::io::stdout().write_all(table.as_bytes())?;
    Ok(())
}
