//! The audit log: what is written is read back as it was, newest first, by every filter.

use convox_model::{Event, OrgId};
use convox_store::Page;
use convox_store::audit::{Entry, Filter};

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

#[test]
fn events_come_back_as_they_were_with_how_they_ended() {
    on_each(async |store| {
        let org = OrgId::new();
        let hostile = "x\",\"decision\":\"allowed\"\u{1b}[31m\u{202e}\n";
        store.write_audit(&[event(&org, NOW, 1, |event| event.path = hostile.to_owned())]).await.unwrap();
        let outcome = Entry::Outcome { id: id(NOW, 1), status: Some(201), bytes_up: 5, bytes_down: u64::MAX, duration_ms: 7 };
        store.write_audit(&[outcome]).await.unwrap();
        let events = store.list_audit(&Filter::default(), &Page::first(10)).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].path.as_str(), events[0].status, events[0].bytes_up), (hostile, Some(201), Some(5)));
        assert_eq!(events[0].bytes_down, Some(i64::MAX.unsigned_abs()));
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
            .write_audit(&[
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
