//! Racks, and those that the Console installs.

use convox_model::{OrgId, RackId};
use convox_seal::Sealed;
use convox_store::racks::RackRow;
use convox_store::{Page, Store, StoreError};

use super::{NOW, act, act_at, on_each, org};

pub(crate) fn rack(org: &OrgId, name: &str) -> RackRow {
    RackRow {
        id: RackId::new(),
        org: org.clone(),
        org_name: String::new(),
        name: name.to_owned(),
        provider: "local".to_owned(),
        host: "rack.example.com:5443".to_owned(),
        pin: Some("sha256:00".to_owned()),
        password: Sealed::from_bytes(vec![1, 2, 3]),
        generation: 1,
        created_ms: 0,
        protected: false,
        password_ms: 0,
    }
}

pub(crate) async fn added(store: &Store, org: &OrgId, name: &str) -> RackRow {
    store.insert_rack(&rack(org, name), &act("RackAdd")).await.unwrap();
    store.find_rack(org, name).await.unwrap().unwrap()
}

#[test]
fn racks_are_added_found_renamed_and_removed() {
    on_each(async |store| {
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let main = rack(&acme, "main");
        store.insert_rack(&main, &act("RackAdd")).await.unwrap();
        assert!(matches!(store.insert_rack(&rack(&acme, "main"), &act("RackAdd")).await, Err(StoreError::Conflict(_))));
        store.insert_rack(&rack(&labs, "main"), &act("RackAdd")).await.unwrap();
        let found = store.find_rack(&acme, "main").await.unwrap().unwrap();
        assert_eq!(
            (found.path().as_str(), found.password.as_bytes(), found.created_ms, found.password_ms),
            ("acme/main", &[1, 2, 3][..], NOW, NOW)
        );
        assert_eq!(store.find_rack_by_id(&main.id).await.unwrap(), Some(found));
        store.rename_rack(&main.id, &"prod".parse().unwrap(), &act("RackRename")).await.unwrap();
        assert_eq!(store.find_rack(&acme, "main").await.unwrap(), None);
        assert_eq!(store.list_racks(Some(&acme), &Page::first(10)).await.unwrap().len(), 1);
        assert_eq!(store.list_racks(None, &Page::first(10)).await.unwrap().len(), 2);
        store.protect_rack(&main.id, true, &act("RackProtect")).await.unwrap();
        assert!(matches!(store.delete_rack(&main.id, &act("RackRemove")).await, Err(StoreError::Conflict(_))));
        store.protect_rack(&main.id, false, &act("RackProtect")).await.unwrap();
        store.delete_rack(&main.id, &act("RackRemove")).await.unwrap();
        for gone in [
            store.delete_rack(&main.id, &act("RackRemove")).await,
            store.rename_rack(&main.id, &"x".parse().unwrap(), &act("RackRename")).await,
            store.protect_rack(&main.id, true, &act("RackProtect")).await,
        ] {
            assert!(matches!(gone, Err(StoreError::Missing(_))), "{gone:?}");
        }
    });
}

#[test]
fn a_rack_that_moves_is_in_one_organization_at_every_moment() {
    on_each(async |store| {
        let (acme, labs) = (org(&store, "acme").await, org(&store, "labs").await);
        let main = rack(&acme, "main");
        store.insert_rack(&main, &act("RackAdd")).await.unwrap();
        let before = store.find_rack(&acme, "main").await.unwrap().unwrap();
        let resealed = Sealed::from_bytes(vec![9]);
        store.move_rack(&before, &labs, &resealed, &act("RackMove"), &act("RackMove")).await.unwrap();
        assert_eq!(store.find_rack(&acme, "main").await.unwrap(), None);
        let after = store.find_rack(&labs, "main").await.unwrap().unwrap();
        assert_eq!((&after.id, after.password.as_bytes(), after.password_ms), (&main.id, &[9][..], NOW));
        assert!(after.generation > before.generation, "what was opened for the old place is not used");
        // Somebody who read the row before the move does not move it back with the old seal.
        let late = store.move_rack(&before, &acme, &resealed, &act("RackMove"), &act("RackMove")).await;
        assert!(late.is_err(), "{late:?}");
        store.insert_rack(&rack(&acme, "main"), &act("RackAdd")).await.unwrap();
        let taken = store.move_rack(&after, &acme, &resealed, &act("RackMove"), &act("RackMove")).await;
        assert!(matches!(taken, Err(StoreError::Conflict(_))), "{taken:?}");
    });
}

#[test]
fn an_installation_keeps_its_lines_and_ends_once() {
    on_each(async |store| {
        let acme = org(&store, "acme").await;
        store.insert_install("i1", &acme, "main", &act("RackInstall")).await.unwrap();
        assert!(matches!(store.insert_install("i2", &acme, "main", &act("RackInstall")).await, Err(StoreError::Conflict(_))));
        assert!(store.is_install_running("i1").await.unwrap());
        store.log_install("i1", "one").await.unwrap();
        store.log_install("i1", "two").await.unwrap();
        store.end_install("i1", "failed", "Failed: x", NOW + 5).await.unwrap();
        let row = store.find_install(&acme, "i1").await.unwrap().unwrap();
        assert_eq!(
            (row.log.lines().collect::<Vec<_>>(), row.status.as_str(), row.ended_ms),
            (vec!["one", "two", "Failed: x"], "failed", Some(NOW + 5))
        );
        assert!(!store.is_install_running("i1").await.unwrap());
        assert_eq!(store.find_install(&OrgId::new(), "i1").await.unwrap(), None);
        store.insert_install("i3", &acme, "main", &act_at("RackInstall", NOW + 10)).await.unwrap();
        let listed: Vec<String> = store.list_installs(&acme).await.unwrap().into_iter().map(|row| row.id).collect();
        assert_eq!(listed, ["i3", "i1"], "the newest first");
    });
}
