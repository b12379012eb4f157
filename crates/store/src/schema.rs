//! The schema. Steps are never edited once they have landed; a new one is added.

use convox_db::Migration;

pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "0001_init",
        sqlite: include_str!("../migrations/sqlite/0001_init.sql"),
        postgres: include_str!("../migrations/postgres/0001_init.sql"),
    },
    Migration {
        name: "0002_audit_outcome",
        sqlite: include_str!("../migrations/sqlite/0002_audit_outcome.sql"),
        postgres: include_str!("../migrations/postgres/0002_audit_outcome.sql"),
    },
    Migration {
        name: "0003_audit_org",
        sqlite: include_str!("../migrations/sqlite/0003_audit_org.sql"),
        postgres: include_str!("../migrations/postgres/0003_audit_org.sql"),
    },
    Migration {
        name: "0004_web",
        sqlite: include_str!("../migrations/sqlite/0004_web.sql"),
        postgres: include_str!("../migrations/postgres/0004_web.sql"),
    },
    Migration {
        name: "0005_web_members",
        sqlite: include_str!("../migrations/sqlite/0005_web_members.sql"),
        postgres: include_str!("../migrations/postgres/0005_web_members.sql"),
    },
    Migration {
        name: "0006_factors",
        sqlite: include_str!("../migrations/sqlite/0006_factors.sql"),
        postgres: include_str!("../migrations/postgres/0006_factors.sql"),
    },
    Migration {
        name: "0007_changes",
        sqlite: include_str!("../migrations/sqlite/0007_changes.sql"),
        postgres: include_str!("../migrations/postgres/0007_changes.sql"),
    },
    Migration {
        name: "0008_audit_chain",
        sqlite: include_str!("../migrations/sqlite/0008_audit_chain.sql"),
        postgres: include_str!("../migrations/postgres/0008_audit_chain.sql"),
    },
    Migration {
        name: "0009_authorizations",
        sqlite: include_str!("../migrations/sqlite/0009_authorizations.sql"),
        postgres: include_str!("../migrations/postgres/0009_authorizations.sql"),
    },
    Migration {
        name: "0010_guesses",
        sqlite: include_str!("../migrations/sqlite/0010_guesses.sql"),
        postgres: include_str!("../migrations/postgres/0010_guesses.sql"),
    },
    Migration {
        name: "0011_rack_keys",
        sqlite: include_str!("../migrations/sqlite/0011_rack_keys.sql"),
        postgres: include_str!("../migrations/postgres/0011_rack_keys.sql"),
    },
    Migration {
        name: "0012_keys",
        sqlite: include_str!("../migrations/sqlite/0012_keys.sql"),
        postgres: include_str!("../migrations/postgres/0012_keys.sql"),
    },
    Migration {
        name: "0017_key_rolls",
        sqlite: include_str!("../migrations/sqlite/0017_key_rolls.sql"),
        postgres: include_str!("../migrations/postgres/0017_key_rolls.sql"),
    },
    Migration {
        name: "0018_roll_faults",
        sqlite: include_str!("../migrations/sqlite/0018_roll_faults.sql"),
        postgres: include_str!("../migrations/postgres/0018_roll_faults.sql"),
    },
    Migration {
        name: "0019_device_networks",
        sqlite: include_str!("../migrations/sqlite/0019_device_networks.sql"),
        postgres: include_str!("../migrations/postgres/0019_device_networks.sql"),
    },
];
