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
    Migration {
        name: "0022_audit_register",
        sqlite: include_str!("../migrations/sqlite/0022_audit_register.sql"),
        postgres: include_str!("../migrations/postgres/0022_audit_register.sql"),
    },
    Migration {
        name: "0030_second_reset",
        sqlite: include_str!("../migrations/sqlite/0030_second_reset.sql"),
        postgres: include_str!("../migrations/postgres/0030_second_reset.sql"),
    },
    Migration {
        name: "0031_wide_networks",
        sqlite: include_str!("../migrations/sqlite/0031_wide_networks.sql"),
        postgres: include_str!("../migrations/postgres/0031_wide_networks.sql"),
    },
    Migration {
        name: "0032_key_successors",
        sqlite: include_str!("../migrations/sqlite/0032_key_successors.sql"),
        postgres: include_str!("../migrations/postgres/0032_key_successors.sql"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// From before there was a release: no server of an older version can be running.
    const BEFORE: &[&str] = &["0001_init", "0003_audit_org", "0007_changes", "0008_audit_chain", "0012_keys", "0017_key_rolls"];

    #[test]
    fn every_file_of_a_migration_is_applied_in_the_order_of_its_name() {
        for kind in ["sqlite", "postgres"] {
            let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
            let mut files: Vec<String> = std::fs::read_dir(directory)
                .unwrap()
                .map(|file| file.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            files.sort();
            assert_eq!(MIGRATIONS.iter().map(|migration| migration.name).collect::<Vec<_>>(), files, "{kind}");
        }
    }

    /// Statements of `text` that a server of the version before may trip over, but for those that say why they are safe.
    fn harmful(text: &str) -> Vec<String> {
        let (mut found, mut made) = (Vec::new(), Vec::new());
        for (place, statement) in text.split(';').enumerate() {
            // What follows on the line of the statement before is about that one.
            let is_excused = statement
                .lines()
                .skip(usize::from(place > 0))
                .any(|line| line.trim_start().strip_prefix("-- two-step:").is_some_and(|why| !why.trim().is_empty()));
            let words = words(statement);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if let ["CREATE", "TABLE", "IF", "NOT", "EXISTS", table, ..] | ["CREATE", "TABLE", table, ..] = words[..] {
                made.push(table.to_owned());
            }
            if is_harmful(&words, &made) && !is_excused {
                found.push(words.join(" "));
            }
        }
        found
    }

    /// Without comments, in capitals; parentheses and commas are words of their own.
    fn words(statement: &str) -> Vec<String> {
        let lines: Vec<&str> = statement.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
        let (mut code, mut rest) = (String::new(), lines.join(" "));
        while let Some((before, after)) = rest.split_once("/*") {
            code.push_str(before);
            code.push(' ');
            rest = after.split_once("*/").map(|(_, after)| after.to_owned()).unwrap_or_default();
        }
        code.push_str(&rest);
        let code = ['(', ')', ','].iter().fold(code, |code, sign| code.replace(*sign, &format!(" {sign} ")));
        code.to_uppercase().split_whitespace().map(str::to_owned).collect()
    }

    /// Whether a server that does not know of it may fail on it, or on rows that it writes or reads afterwards. `made` are tables of this step:
    /// no such server knows them.
    fn is_harmful(words: &[&str], made: &[String]) -> bool {
        match words {
            ["ALTER", "TABLE", rest @ ..] => {
                let rest: Vec<&str> = rest.iter().copied().filter(|word| !["IF", "EXISTS", "ONLY"].contains(word)).collect();
                let [table, clauses @ ..] = &rest[..] else { return true };
                let mut depth = 0;
                let clauses = clauses.split(|word| {
                    depth += i32::from(*word == "(") - i32::from(*word == ")");
                    *word == "," && depth == 0
                });
                !made.iter().any(|made| made == table) && clauses.into_iter().any(|clause| !only_adds(clause))
            }
            ["DROP", "INDEX", ..] => false,
            ["DROP" | "DELETE" | "TRUNCATE" | "ALTER" | "PRAGMA" | "VACUUM", ..] | ["CREATE", "OR", "REPLACE", ..] => true,
            // What was two is a fault from now on.
            ["CREATE", "UNIQUE", "INDEX", rest @ ..] => {
                let table = rest.iter().skip_while(|word| **word != "ON").nth(1);
                !table.is_some_and(|table| made.iter().any(|made| made == table))
            }
            ["WITH", ..] => words.contains(&"DELETE"),
            _ => words.contains(&"RAISE"),
        }
    }

    /// Whether a clause of `ALTER TABLE` adds a column that somebody who does not know it need not give a value.
    fn only_adds(clause: &[&str]) -> bool {
        let ["ADD", rest @ ..] = clause else { return false };
        let is_constraint =
            matches!(rest.first(), None | Some(&("CONSTRAINT" | "UNIQUE" | "PRIMARY" | "CHECK" | "FOREIGN" | "EXCLUDE" | "NOT" | "(")));
        let is_required = rest.windows(2).any(|two| two == ["NOT", "NULL"]) && !rest.contains(&"DEFAULT");
        !is_constraint && !is_required && !rest.contains(&"UNIQUE")
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
            "DROP VIEW a",
            "DROP TYPE a",
            "ALTER TABLE a DROP COLUMN b",
            "ALTER TABLE a DROP b",
            "alter table a rename to b",
            "ALTER TABLE a RENAME COLUMN b TO c",
            "ALTER TABLE a ALTER COLUMN b TYPE BIGINT",
            "ALTER TABLE a ALTER b SET NOT NULL",
            "ALTER TABLE a ADD CONSTRAINT c CHECK (b > 0)",
            "ALTER TABLE a ADD UNIQUE (b)",
            "ALTER TABLE a ADD b TEXT NOT NULL",
            "ALTER TABLE IF EXISTS a ADD COLUMN b TEXT NOT NULL",
            "ALTER TABLE a ADD COLUMN b NUMERIC(1, 2) NOT NULL DEFAULT 0, ADD COLUMN c TEXT NOT NULL",
            "CREATE TABLE x (y TEXT); ALTER TABLE a ADD COLUMN b TEXT NOT NULL",
            "CREATE UNIQUE INDEX a_b ON a (b)",
            "CREATE OR REPLACE FUNCTION f() RETURNS trigger AS $$ BEGIN RETURN NEW",
            "DELETE FROM a",
            "TRUNCATE a",
            "WITH x AS (SELECT 1) DELETE FROM a",
            "/* harmless */ DROP TABLE a",
            // An excuse is for the statement below it, and says something.
            "CREATE INDEX a_b ON a (b); -- two-step: not this one\nDROP TABLE a",
            "-- two-step:\nDROP TABLE a",
        ] {
            assert_eq!(harmful(bad).len(), 1, "{bad}");
        }
        for good in [
            "CREATE TABLE a (b TEXT NOT NULL); -- drop table a",
            "CREATE TABLE a (b TEXT); CREATE UNIQUE INDEX a_b ON a (b); ALTER TABLE a ADD COLUMN c TEXT NOT NULL",
            "ALTER TABLE a ADD COLUMN b TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE a ADD b TEXT, ADD c TEXT REFERENCES d (e)",
            "-- two-step: not read since 0.2\nDROP TABLE a",
            "/* DROP TABLE a */ UPDATE a SET b = 1",
            "DROP INDEX a_b",
        ] {
            assert_eq!(harmful(good), Vec::<String>::new(), "{good}");
        }
    }

    #[test]
    fn both_databases_have_the_same_steps_in_their_order() {
        assert!(MIGRATIONS.is_sorted_by(|a, b| a.name < b.name));
    }
}
