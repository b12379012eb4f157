//! The audit log: what is written is read back as it was, newest first, by every filter.

use convox_db::{Db, DbError};
use convox_model::{Event, OrgId};
use convox_seal::chain::ChainKey;
use convox_store::Page;
use convox_store::Store;
use convox_store::audit::carry::Known;
use convox_store::audit::retention::Rule;
use convox_store::audit::{End, Entry, Filter};

use super::{NOW, on_each};

/// Ids as the system makes them, for a moment of the test's choice.
fn id(at_ms: i64, number: u16) -> String {
    let ms = u64::try_from(at_ms).unwrap();
    format!("{:08x}-{:04x}-7{number:03x}-8000-000000000000", ms >> 16, ms & 0xffff)
}

fn event(org: &OrgId, at_ms: i64, number: u16, edit: impl FnOnce(&mut Event)) -> Entry {
    let mut event = Event {
        id: id(at_ms, number),
        at_ms,
        actor: "ada@example.com".to_owned(),
        org: "acme".to_owned(),
        org_id: org.to_string(),
        rack: "main".to_owned(),
        effect: "write".to_owned(),
        decision: "allowed".to_owned(),
        ..Event::default()
    };
    edit(&mut event);
    Entry::Event(Box::new(event))
}

fn end(org: &OrgId, at_ms: i64, number: u16, status: u16) -> Entry {
    let end = End { of: id(at_ms, number), status: Some(status), bytes_up: 5, bytes_down: i64::MAX, duration_ms: 7 };
    Entry::End { org_id: org.to_string(), end }
}

#[test]
fn events_come_back_as_they_were_with_how_they_ended() {
    on_each(async |store| {
        let org = OrgId::new();
        let hostile = "x\",\"decision\":\"allowed\"\u{1b}[31m\u{202e}\n";
        let mut writer = store.audit_writer(1);
        writer.write(&[event(&org, NOW, 1, |event| event.path = hostile.to_owned())]).await.unwrap();
        writer.write(&[end(&org, NOW, 1, 201)]).await.unwrap();
        let events = store.list_audit(&Filter::default(), &Page::first(10)).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].path.as_str(), events[0].status, events[0].bytes_up), (hostile, Some(201), Some(5)));
        assert_eq!(events[0].bytes_down, Some(i64::MAX.unsigned_abs()));
        assert_eq!(events[0].duration_ms, Some(7));
        assert_eq!(store.last_of_rack(&org, "main").await.unwrap().unwrap().id, id(NOW, 1));
        assert!(store.last_of_rack(&org, "other").await.unwrap().is_none());
    });
}

#[test]
fn every_filter_leaves_what_it_names_page_by_page() {
    on_each(async |store| {
        let (org, other) = (OrgId::new(), OrgId::new());
        let hour = 3_600_000;
        store
            .audit_writer(1)
            .write(&[
                event(&org, NOW, 0, |_| {}),
                event(&org, NOW + hour, 1, |event| event.actor = "bob@example.com".to_owned()),
                event(&org, NOW + 2 * hour, 2, |event| event.rack = "edge".to_owned()),
                event(&org, NOW + 3 * hour, 3, |event| event.app = "web".to_owned()),
                event(&org, NOW + 4 * hour, 4, |event| event.effect = "shell".to_owned()),
                event(&org, NOW + 5 * hour, 5, |event| event.decision = "refused".to_owned()),
                event(&other, NOW + 6 * hour, 6, |_| {}),
            ])
            .await
            .unwrap();
        let list = async |filter: Filter, page: Page| {
            let events = store.list_audit(&filter, &page).await.unwrap();
            events.into_iter().map(|event| (event.at_ms - NOW) / hour).collect::<Vec<_>>()
        };
        let of = |org: &OrgId| Filter { org: Some(org.clone()), ..Filter::default() };
        let all = || Page::first(10);
        assert_eq!(list(Filter::default(), all()).await, [6, 5, 4, 3, 2, 1, 0]);
        assert_eq!(list(of(&org), all()).await, [5, 4, 3, 2, 1, 0]);
        assert_eq!(list(of(&other), all()).await, [6]);
        assert_eq!(list(Filter { actor: "bob@example.com".into(), ..of(&org) }, all()).await, [1]);
        assert_eq!(list(Filter { rack: "edge".into(), ..of(&org) }, all()).await, [2]);
        assert_eq!(list(Filter { app: "web".into(), ..of(&org) }, all()).await, [3]);
        assert_eq!(list(Filter { effect: "shell".into(), ..of(&org) }, all()).await, [4]);
        assert_eq!(list(Filter { decision: "refused".into(), ..of(&org) }, all()).await, [5]);
        assert_eq!(list(Filter { since_ms: NOW + 4 * hour, ..of(&org) }, all()).await, [5, 4]);
        assert_eq!(list(Filter { until_ms: Some(NOW + 2 * hour), ..of(&org) }, all()).await, [1, 0]);
        assert_eq!(list(Filter { since_ms: NOW + hour, until_ms: Some(NOW + 3 * hour), ..of(&org) }, all()).await, [2, 1]);
        assert_eq!(list(of(&org), Page { limit: 2, after: Some(id(NOW + 4 * hour, 4)) }).await, [3, 2]);
        let after = Page { limit: 10, after: Some(id(NOW + hour, 1)) };
        assert_eq!(list(Filter { until_ms: Some(NOW + 3 * hour), ..of(&org) }, after).await, [0]);
    });
}

fn key() -> ChainKey {
    ChainKey::from_bytes(&[7; 32])
}

/// Everything that a check finds wrong: chain, number, words.
async fn faults(store: &Store) -> Vec<(String, i64, String)> {
    let mut faults = store.check_outside(None).await.unwrap().1;
    faults.extend(store.check_audit_register().await.unwrap());
    for chain in store.list_chains(None).await.unwrap() {
        faults.extend(store.check_chain(&chain).await.unwrap().1);
    }
    faults.into_iter().map(|fault| (fault.chain, fault.number, fault.what)).collect()
}

/// A log of one organization: two writers with five events each, of which the first one of each has ended, and a change.
async fn written(store: &Store) -> (Store, OrgId) {
    let store = store.clone().sealing(key());
    store.begin_audit_register().await.unwrap();
    let org = super::org(&store, "acme").await;
    for slot in [1, 2] {
        let mut writer = store.audit_writer(slot);
        let number = |of: u16| u16::try_from(slot).unwrap() * 100 + of;
        writer.write(&[event(&org, NOW, number(1), |_| {}), event(&org, NOW + 1, number(2), |_| {})]).await.unwrap();
        writer.write(&[end(&org, NOW, number(1), 200)]).await.unwrap();
        let more: Vec<Entry> = (3..=5).map(|of| event(&org, NOW + i64::from(of), number(of), |_| {})).collect();
        writer.write(&more).await.unwrap();
    }
    (store, org)
}

#[test]
fn a_log_that_nobody_touched_is_whole() {
    on_each(async |store| {
        let (store, org) = written(&store).await;
        assert_eq!(faults(&store).await, []);
        let chains = store.list_chains(Some(org.as_str())).await.unwrap();
        assert_eq!(chains.iter().map(|chain| (chain.slot, chain.head.number)).collect::<Vec<_>>(), [(1, 6), (2, 6)]);
        assert_eq!(store.check_chain(&chains[0]).await.unwrap().0, 5);
        // The change that made the organization belongs to none.
        assert_eq!(store.list_chains(None).await.unwrap().iter().map(|chain| chain.name()).next().unwrap(), "/0");
    });
}

#[test]
fn a_log_of_more_than_a_page_is_read_in_its_order() {
    on_each(async |store| {
        let store = store.sealing(key());
        let org = OrgId::new();
        let mut writer = store.audit_writer(1);
        for round in 0..6 {
            let entries: Vec<Entry> = (0..500)
                .flat_map(|of| {
                    let number = round * 500 + of;
                    [event(&org, NOW + i64::from(number), number % 4096, |_| {}), end(&org, NOW + i64::from(number), number % 4096, 200)]
                })
                .collect();
            writer.write(&entries).await.unwrap();
        }
        assert_eq!(faults(&store).await, []);
        let chain = store.list_chains(None).await.unwrap().remove(0);
        assert_eq!((chain.head.number, store.check_chain(&chain).await.unwrap().0), (6000, 3000));
    });
}

#[test]
fn two_writers_of_one_chain_put_their_entries_behind_each_other() {
    on_each(async |store| {
        let store = store.sealing(key());
        let org = OrgId::new();
        let (mut one, mut two) = (store.audit_writer(1), store.audit_writer(1));
        for round in 0..10 {
            let (a, b) = ([event(&org, NOW, round, |_| {})], [event(&org, NOW, 100 + round, |_| {})]);
            one.write(&a).await.unwrap();
            two.write(&b).await.unwrap();
        }
        assert_eq!(faults(&store).await, []);
        assert_eq!(store.list_chains(None).await.unwrap()[0].head.number, 20);
    });
}

#[test]
fn many_servers_write_at_the_same_time() {
    on_each(async |store| {
        let store = store.sealing(key());
        let org = OrgId::new();
        let write = |slot: i64| {
            let (store, org) = (store.clone(), org.clone());
            tokio::spawn(async move {
                let mut writer = store.audit_writer(slot);
                for round in 0..20 {
                    let number = u16::try_from(slot).unwrap() * 100 + round;
                    writer.write(&[event(&org, NOW, number, |_| {}), end(&org, NOW, number, 200)]).await.unwrap();
                }
            })
        };
        for task in (1..=4).map(write).collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(faults(&store).await, []);
        assert_eq!(store.list_chains(None).await.unwrap().iter().map(|chain| chain.head.number).collect::<Vec<_>>(), [40; 4]);
    });
}

#[test]
fn servers_that_run_at_the_same_time_write_as_different_ones() {
    on_each(async |store| {
        let join = async |node: &str| store.join(node, 0, true).await.unwrap();
        assert_eq!([join("one").await, join("two").await, join("one").await], [1, 2, 1]);
    });
}

/// Everything that was removed because of its age is gone, and what is left can still be checked.
#[test]
fn old_events_go_and_leave_an_anchor() {
    on_each(async |store| {
        let (store, org) = written(&store).await;
        assert!(store.has_audit_before(org.as_str(), NOW + 3).await.unwrap());
        assert_eq!(store.prune_audit(org.as_str(), NOW + 3).await.unwrap(), 6, "two events and an end of each writer");
        assert_eq!(faults(&store).await, []);
        let left = store.list_audit(&Filter { org: Some(org.clone()), ..Filter::default() }, &Page::first(100)).await.unwrap();
        assert_eq!(left.len(), 6);
        assert!(left.iter().all(|event| event.at_ms >= NOW + 3));
        assert!(!store.has_audit_before(org.as_str(), NOW + 3).await.unwrap());
        // Then the writers go on, and all may go.
        store.audit_writer(1).write(&[event(&org, NOW + 9, 9, |_| {})]).await.unwrap();
        assert_eq!(store.prune_audit(org.as_str(), NOW + 1000).await.unwrap(), 7);
        assert_eq!(store.prune_audit(org.as_str(), NOW + 1000).await.unwrap(), 0);
        store.audit_writer(2).write(&[event(&org, NOW + 9, 10, |_| {})]).await.unwrap();
        assert_eq!(faults(&store).await, []);
    });
}

#[test]
fn what_is_held_does_not_go() {
    on_each(async |store| {
        let (store, org) = written(&store).await;
        let held = Rule { keep_ms: Some(1), hold: true };
        store.set_audit_rule(org.as_str(), held, &super::act("AuditRule")).await.unwrap();
        assert_eq!(store.list_audit_rules().await.unwrap(), [(org.to_string(), held)]);
        assert_eq!((held.cutoff_ms(NOW), Rule { hold: false, ..held }.cutoff_ms(NOW)), (None, Some(NOW - 1)));
        assert_eq!(store.prune_audit(org.as_str(), NOW + 1000).await.unwrap(), 0);
        store.set_audit_rule(org.as_str(), Rule { hold: false, ..held }, &super::act("AuditRule")).await.unwrap();
        assert_eq!(store.prune_audit(org.as_str(), NOW + 1000).await.unwrap(), 12);
    });
}

/// As events were written before there were chains, and as somebody with the database could put one in.
async fn put_unchained(db: &Db, entry: &Entry) -> Result<(), DbError> {
    let Entry::Event(event) = entry else { panic!("an event") };
    convox_db::transaction!(db, |tx| {
        sqlx::query(
            "INSERT INTO audit (id, at_ms, actor, org, org_id, rack, app, effect, decision, event) \
             VALUES ($1, $2, '', '', $3, '', '', '', 'allowed', $4)",
        )
        .bind(&event.id)
        .bind(event.at_ms)
        .bind(&event.org_id)
        .bind(event.to_json_line())
        .execute(&mut *tx)
        .await?;
    });
    Ok(())
}

#[test]
fn the_register_counts_chains_and_what_is_older_than_they_are() {
    super::new_databases(1, async |all, _| {
        let (db, ada) = (&all[0], OrgId::new());
        let store = Store::new(db.clone()).await.unwrap();
        put_unchained(db, &event(&ada, NOW - 100, 1, |_| {})).await.unwrap();
        let (store, org) = written(&store).await;
        assert_eq!(store.check_outside(None).await.unwrap().0, 1);
        assert_eq!(faults(&store).await, []);
        put_unchained(db, &event(&org, NOW - 50, 2, |_| {})).await.unwrap();
        let found = faults(&store).await;
        assert!(found.len() == 1 && found[0].2.contains("there were 1 of these, and there are 2"), "{found:?}");
        // Retention takes old ones away, and the register follows.
        assert_eq!(store.prune_audit(ada.as_str(), NOW - 90).await.unwrap(), 1);
        let found = faults(&store).await;
        assert!(found.len() == 1 && found[0].2.contains("there were 0 of these, and there are 1"), "{found:?}");
        store.close().await;
    });
}

#[test]
fn what_was_written_elsewhere_is_taken_in_once_however_often_it_is_brought() {
    on_each(async |store| {
        let store = store.sealing(key());
        let org = OrgId::new();
        let all: Vec<Entry> = (0..150).flat_map(|number| [event(&org, NOW, number, |_| {}), end(&org, NOW, number, 200)]).collect();
        let mut writer = store.audit_writer(1);
        writer.write(&all[..100]).await.unwrap();
        let known = writer.carry(&all[50..]).await.unwrap();
        assert_eq!(known.iter().filter(|known| **known == Known::Yes).count(), 50);
        assert_eq!(known.iter().filter(|known| **known == Known::No).count(), 200);
        assert!(store.audit_writer(2).carry(&all).await.unwrap().iter().all(|known| *known == Known::Yes));
        assert_eq!(store.list_audit(&Filter::default(), &Page::first(1000)).await.unwrap().len(), 150);
        assert_eq!(faults(&store).await, []);
        // In other words: never in the place of what is there.
        let other = [event(&org, NOW, 7, |event| event.path = "/other".to_owned()), end(&org, NOW, 7, 500)];
        assert_eq!(writer.carry(&other).await.unwrap(), [Known::Otherwise; 2]);
        assert_eq!(faults(&store).await, []);
    });
}
