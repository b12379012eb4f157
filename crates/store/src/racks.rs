//! Racks, with sealed passwords.

use convox_model::{OrgId, RackId, RackName};
use convox_seal::Sealed;

use crate::data_keys::sealed_under_a_living_key;
use crate::register::{self, Judge, enter, read_register};
use crate::snapshot::moment;
use crate::{Act, Page, Store, StoreError, change};

/// A Rack's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RackRow {
    /// Its id.
    pub id: RackId,
    /// Whose.
    pub org: OrgId,
    /// Name of the organization.
    pub org_name: String,
    /// Its name.
    pub name: String,
    /// What it runs on.
    pub provider: String,
    /// `HOST` or `HOST:PORT`.
    pub host: String,
    /// Fingerprint of its certificate; without one the system's roots decide.
    pub pin: Option<String>,
    /// Sealed password.
    pub password: Sealed,
    /// Moves with every change of host, pin or password.
    pub generation: i64,
    /// When it was added, milliseconds since 1970.
    pub created_ms: i64,
    /// Whether it may not be removed.
    pub protected: bool,
    /// Since when the password is what it is, milliseconds since 1970.
    pub password_ms: i64,
}

impl RackRow {
    /// `org/name`
    pub fn path(&self) -> String {
        format!("{}/{}", self.org_name, self.name)
    }
}

pub(crate) type Row = (String, String, String, String, String, String, Option<String>, Vec<u8>, i64, i64, i64, i64);

impl Store {
    /// Adds a Rack. Its `org_name`, `protected` and times are not looked at.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the organization has a Rack of that name.
    pub async fn insert_rack(&self, rack: &RackRow, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("a Rack named {} is already there", rack.name);
        self.insert_rack_row(rack, act).await.map_err(|error| error.taken(taken))
    }

    async fn insert_rack_row(&self, rack: &RackRow, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sealed_under_a_living_key!(tx, rack.org.as_str(), rack.password);
            sqlx::query(
                "INSERT INTO racks (id, org_id, name, provider, host, pin, password, generation, created_ms, password_ms) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)",
            )
            .bind(rack.id.as_str())
            .bind(rack.org.as_str())
            .bind(rack.name.as_str())
            .bind(rack.provider.as_str())
            .bind(rack.host.as_str())
            .bind(rack.pin.as_deref())
            .bind(rack.password.as_bytes())
            .bind(rack.generation)
            .bind(act.event.at_ms)
            .execute(&mut *tx)
            .await?;
            enter!(self, tx, register::password(rack.id.as_str()), Some(&rack.password));
        });
        Ok(seq)
    }

    /// Gives a Rack another name.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Missing`].
    pub async fn rename_rack(&self, id: &RackId, name: &RackName, act: &Act) -> Result<i64, StoreError> {
        let taken = || format!("a Rack named {name} is already there");
        self.rename_rack_row(id, name, act).await.map_err(|error| error.taken(taken))
    }

    async fn rename_rack_row(&self, id: &RackId, name: &RackName, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done =
                sqlx::query("UPDATE racks SET name = $2 WHERE id = $1").bind(id.as_str()).bind(name.as_str()).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(gone());
            }
        });
        Ok(seq)
    }

    /// Says whether a Rack may not be removed.
    ///
    /// # Errors
    /// [`StoreError::Missing`].
    pub async fn protect_rack(&self, id: &RackId, protected: bool, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let done = sqlx::query("UPDATE racks SET protected = $2 WHERE id = $1")
                .bind(id.as_str())
                .bind(i64::from(protected))
                .execute(&mut *tx)
                .await?;
            if done.rows_affected() == 0 {
                return Err(gone());
            }
        });
        Ok(seq)
    }

    /// Moves a Rack to another organization, with its password sealed anew for its place there: in one step, so that it is never in
    /// neither. `there` is the act in the other organization; both rights are looked at.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken there, or the Rack was changed meanwhile.
    pub async fn move_rack(&self, before: &RackRow, to: &OrgId, password: &Sealed, act: &Act, there: &Act) -> Result<i64, StoreError> {
        let taken = || format!("a Rack named {} is already in that organization; rename one of them first", before.name);
        self.move_rack_row(before, to, password, act, there).await.map_err(|error| error.taken(taken))
    }

    async fn move_rack_row(&self, before: &RackRow, to: &OrgId, password: &Sealed, act: &Act, there: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            crate::act::check!(tx, there);
            let rolling: Option<(String,)> =
                sqlx::query_as("SELECT step FROM rack_rolls WHERE rack_id = $1").bind(before.id.as_str()).fetch_optional(&mut *tx).await?;
            if rolling.is_some() {
                return Err(StoreError::Conflict("its password is being rolled; move the Rack when that is over".to_owned()));
            }
            sealed_under_a_living_key!(tx, to.as_str(), password);
            let done = sqlx::query(
                "UPDATE racks SET org_id = $2, password = $3, generation = generation + 1 WHERE id = $1 AND org_id = $4 AND generation = $5",
            )
            .bind(before.id.as_str())
            .bind(to.as_str())
            .bind(password.as_bytes())
            .bind(before.org.as_str())
            .bind(before.generation)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Conflict("the Rack was changed meanwhile; look at it again".to_owned()));
            }
            enter!(self, tx, register::password(before.id.as_str()), Some(password));
            crate::audit::chain::insert!(self, tx, &there.event);
        });
        Ok(seq)
    }

    /// Pins the certificate that the pinned one handed over to, with the password sealed anew for its place beside it. What is open stays open.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the Rack was changed meanwhile, or its password is being rolled: that is sealed for the old pin.
    pub async fn hand_over_pin(&self, before: &RackRow, pin: &str, password: &Sealed, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            sealed_under_a_living_key!(tx, before.org.as_str(), password);
            let done = sqlx::query(
                "UPDATE racks SET pin = $2, password = $3 WHERE id = $1 AND pin = $4 AND generation = $5 AND password_ms = $6 \
                 AND NOT EXISTS (SELECT 1 FROM rack_rolls WHERE rack_id = $1)",
            )
            .bind(before.id.as_str())
            .bind(pin)
            .bind(password.as_bytes())
            .bind(before.pin.as_deref())
            .bind(before.generation)
            .bind(before.password_ms)
            .execute(&mut *tx)
            .await?;
            if done.rows_affected() == 0 {
                return Err(StoreError::Conflict("the Rack was changed meanwhile".to_owned()));
            }
            enter!(self, tx, register::password(before.id.as_str()), Some(password));
        });
        Ok(seq)
    }

    /// Removes a Rack from the Console; the Rack itself goes on.
    ///
    /// # Errors
    /// [`StoreError::Missing`]; [`StoreError::Conflict`] for a protected one.
    pub async fn delete_rack(&self, id: &RackId, act: &Act) -> Result<i64, StoreError> {
        let ((), seq) = change!(self, act, |tx| {
            let kept: Option<(i64,)> =
                sqlx::query_as("SELECT protected FROM racks WHERE id = $1").bind(id.as_str()).fetch_optional(&mut *tx).await?;
            if kept.is_some_and(|(protected,)| protected != 0) {
                return Err(StoreError::Conflict("the Rack is protected; take the protection away first".to_owned()));
            }
            let done = sqlx::query("DELETE FROM racks WHERE id = $1").bind(id.as_str()).execute(&mut *tx).await?;
            if done.rows_affected() == 0 {
                return Err(gone());
            }
            // Put in again, it opens nothing.
            for place in [register::password(id.as_str())].into_iter().chain(register::of_roll(id)) {
                enter!(self, tx, place, None);
            }
        });
        Ok(seq)
    }

    /// A Rack by its organization and name.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_rack(&self, org: &OrgId, name: &str) -> Result<Option<RackRow>, StoreError> {
        let judging = self.judging();
        let (row, register) = moment!(&self.db, |tx| {
            let row: Option<Row> = sqlx::query_as(
                "SELECT r.id, r.org_id, o.name, r.name, r.provider, r.host, r.pin, r.password, r.generation, r.created_ms, r.protected, r.password_ms \
                 FROM racks r JOIN orgs o ON o.id = r.org_id WHERE r.org_id = $1 AND r.name = $2",
            )
            .bind(org.as_str())
            .bind(name)
            .fetch_optional(&mut *tx)
            .await?;
            let places: Vec<_> = row.iter().map(|(id, ..)| register::password(id)).collect();
            (row, read_register!(tx, &places))
        });
        let judge = judging.by(register);
        Ok(row.map(|row| rack_row(row, &judge)))
    }

    /// A Rack by its id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn find_rack_by_id(&self, id: &RackId) -> Result<Option<RackRow>, StoreError> {
        let judging = self.judging();
        let (row, register) = moment!(&self.db, |tx| {
            let row: Option<Row> = sqlx::query_as(
                "SELECT r.id, r.org_id, o.name, r.name, r.provider, r.host, r.pin, r.password, r.generation, r.created_ms, r.protected, r.password_ms \
                 FROM racks r JOIN orgs o ON o.id = r.org_id WHERE r.id = $1",
            )
            .bind(id.as_str())
            .fetch_optional(&mut *tx)
            .await?;
            let places: Vec<_> = row.iter().map(|_| register::password(id.as_str())).collect();
            (row, read_register!(tx, &places))
        });
        let judge = judging.by(register);
        Ok(row.map(|row| rack_row(row, &judge)))
    }

    /// Racks of an organization or of all, by id.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn list_racks(&self, org: Option<&OrgId>, page: &Page) -> Result<Vec<RackRow>, StoreError> {
        let judging = self.judging();
        let (rows, register) = moment!(&self.db, |tx| {
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT r.id, r.org_id, o.name, r.name, r.provider, r.host, r.pin, r.password, r.generation, r.created_ms, r.protected, r.password_ms \
                 FROM racks r JOIN orgs o ON o.id = r.org_id WHERE ($1 = '' OR r.org_id = $1) AND r.id > $2 ORDER BY r.id LIMIT $3",
            )
            .bind(org.map(OrgId::as_str).unwrap_or_default())
            .bind(page.after.clone().unwrap_or_default())
            .bind(page.bounded())
            .fetch_all(&mut *tx)
            .await?;
            let places: Vec<_> = rows.iter().map(|(id, ..)| register::password(id)).collect();
            (rows, read_register!(tx, &places))
        });
        let judge = judging.by(register);
        Ok(rows.into_iter().map(|row| rack_row(row, &judge)).collect())
    }
}

fn gone() -> StoreError {
    StoreError::Missing("the Rack is gone".to_owned())
}

pub(crate) fn rack_row(row: Row, judge: &Judge) -> RackRow {
    let (id, org, org_name, name, provider, host, pin, password, generation, created_ms, protected, password_ms) = row;
    let password = judge.judged(register::password(&id), password);
    RackRow {
        id: RackId::from_text(id),
        org: OrgId::from_text(org),
        org_name,
        name,
        provider,
        host,
        pin,
        password,
        generation,
        created_ms,
        protected: protected != 0,
        password_ms,
    }
}
