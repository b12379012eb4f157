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
    Migration {
        name: "0020_register",
        sqlite: include_str!("../migrations/sqlite/0020_register.sql"),
        postgres: include_str!("../migrations/postgres/0020_register.sql"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// From before there was a release: no server of an older version can be running.
    const BEFORE: &[&str] = &["0003_audit_org", "0012_keys", "0017_key_rolls"];

    /// Statements of `text` that a server of the version before may trip over, but for those that say why they are safe.
    fn harmful(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for statement in text.split(';') {
            let is_excused = statement.lines().any(|line| line.trim_start().starts_with("-- two-step:"));
            let code: String = statement.lines().map(|line| line.split("--").next().unwrap_or_default()).collect::<Vec<_>>().join(" ");
            let words: Vec<String> = code.to_uppercase().split_whitespace().map(str::to_owned).collect();
            let has = |pair: [&str; 2]| words.windows(2).any(|two| two == pair);
            let adds = has(["ADD", "COLUMN"]);
            let is_harmful = has(["DROP", "TABLE"])
                || has(["DROP", "COLUMN"])
                || has(["DROP", "TRIGGER"])
                || has(["DROP", "FUNCTION"])
                || has(["DROP", "CONSTRAINT"])
                || has(["ALTER", "COLUMN"])
                || words.iter().any(|word| word == "RENAME")
                // Whoever does not know the column gives it no value.
                || (adds && has(["NOT", "NULL"]) && !words.iter().any(|word| word == "DEFAULT"));
            if is_harmful && !is_excused {
                found.push(words.join(" "));
            }
        }
        found
    }

    #[test]
    fn migrations_only_add_so_that_servers_of_two_versions_work_on_one_database() {
        for migration in MIGRATIONS.iter().filter(|migration| !BEFORE.contains(&migration.name)) {
            for text in [migration.sqlite, migration.postgres] {
                let found = harmful(text);
                assert!(
                    found.is_empty(),
                    "{}: {found:?}: what goes away does so in two releases (docs/adr/0031); if the release before does not use it any more, \
                     say so in a line above: -- two-step: ...",
                    migration.name
                );
            }
        }
        for bad in [
            "DROP TABLE a",
            "ALTER TABLE a DROP COLUMN b",
            "alter table a rename to b",
            "ALTER TABLE a RENAME COLUMN b TO c",
            "ALTER TABLE a ALTER COLUMN b TYPE BIGINT",
            "CREATE TABLE x (y TEXT); ALTER TABLE a ADD COLUMN b TEXT NOT NULL",
        ] {
            assert_eq!(harmful(bad).len(), 1, "{bad}");
        }
        for good in [
            "CREATE TABLE a (b TEXT NOT NULL); -- drop table a",
            "ALTER TABLE a ADD COLUMN b TEXT NOT NULL DEFAULT ''",
            "-- two-step: not read since 0.2\nDROP TABLE a",
            "DROP INDEX a_b",
        ] {
            assert!(harmful(good).is_empty(), "{good}");
        }
    }

    #[test]
    fn both_databases_have_the_same_steps_in_their_order() {
        assert!(MIGRATIONS.is_sorted_by(|a, b| a.name < b.name));
    }
}
