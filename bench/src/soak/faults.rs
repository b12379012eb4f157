//! What happens meanwhile, one thing after the other, and when: whatever fails outside of these times, or fails for another reason, fails the
//! trial.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::caller::Caller;
use super::ground::{CONSOLES, Ground, RACKS, own};
use super::load::{Kind, Trouble};

/// A Console that cannot see its database answers reads from memory for five seconds since it last looked, which was half a second before at most.
const MEMORY: Duration = Duration::from_millis(4500);

/// What is away.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Thing {
    Rack(usize),
    Database,
    /// Nothing is: the time of day is another one.
    Clock,
}

/// One thing that was done, from when until when it was felt.
pub(super) struct Outage {
    pub(super) thing: Thing,
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Outage {
    /// Whether this is why something failed: it was asked of what was away, at that time, and failed as it then must.
    pub(super) fn explains(&self, trouble: &Trouble) -> bool {
        let during = |from: Instant| trouble.begun <= self.to && trouble.ended >= from;
        match (self.thing, trouble.kind) {
            (Thing::Rack(rack), Kind::Read | Kind::Audited) => {
                trouble.rack == rack && matches!(trouble.status, 502 | 504) && during(self.from)
            }
            (Thing::Rack(rack), Kind::Log) => trouble.rack == rack && matches!(trouble.status, 0 | 502 | 504) && during(self.from),
            (Thing::Database, Kind::Audited) => trouble.status == 503 && during(self.from),
            (Thing::Database, Kind::Read) => trouble.status == 503 && during(self.from + MEMORY),
            (Thing::Database, Kind::Log) => matches!(trouble.status, 0 | 503) && during(self.from + MEMORY),
            (Thing::Clock, _) => false,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self.thing {
            Thing::Rack(_) => "a Rack killed and started again",
            Thing::Database => "PostgreSQL stopped and started again",
            Thing::Clock => "the clock jumped",
        }
    }
}

/// Does one thing after the other, with a pause between them, until `end`.
pub(super) async fn go_on(ground: &mut Ground, pause: Duration, end: Instant) -> anyhow::Result<Vec<Outage>> {
    let mut outages = Vec::new();
    for turn in 0.. {
        // The last one is over well before the end, so that what is left behind shows.
        if Instant::now() + 2 * pause + Duration::from_secs(20) > end {
            break;
        }
        tokio::time::sleep(pause).await;
        let from = Instant::now();
        let thing = match turn % 6 {
            0 | 3 => rack(ground, 1 + turn / 3 % (RACKS - 1))?,
            1 => database(ground, "fast", Duration::from_secs(2)).await?,
            4 => database(ground, "immediate", Duration::from_secs(8)).await?,
            step => {
                // An hour ahead and back, ten minutes behind and back.
                let seconds = [3600, 0, -600, 0].get(turn / 6 * 2 % 4 + usize::from(step == 5)).copied().unwrap_or(0);
                ground.clock.jump(seconds)?;
                if !ground.clock.jumps() {
                    continue;
                }
                Thing::Clock
            }
        };
        let outage = Outage { thing, from, to: Instant::now() };
        writeln!(std::io::stderr(), "{}, felt for {:.1} s", outage.name(), (outage.to - from).as_secs_f64())?;
        outages.push(outage);
    }
    tokio::time::sleep(end.saturating_duration_since(Instant::now())).await;
    Ok(outages)
}

fn rack(ground: &mut Ground, number: usize) -> anyhow::Result<Thing> {
    if let Some(rack) = ground.racks.get_mut(number) {
        rack.kill();
        std::thread::sleep(Duration::from_millis(300));
        rack.again()?;
    }
    Ok(Thing::Rack(number))
}

async fn database(ground: &Ground, mode: &str, away: Duration) -> anyhow::Result<Thing> {
    ground.site.postgres.stop(mode)?;
    tokio::time::sleep(away).await;
    ground.site.postgres.run()?;
    // It is felt until every Console can write to it again.
    for console in 0..CONSOLES {
        let mut caller = Caller::new(ground.door(console, 0)?);
        let end = Instant::now() + Duration::from_mins(1);
        let ask = format!("GET /apps/{}/configs/who", own(0, 0));
        while !matches!(caller.send(&ask, "").await, Ok((200, _))) {
            anyhow::ensure!(Instant::now() < end, "a Console does not find its database again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(Thing::Database)
}
