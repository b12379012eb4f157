//! Every kind of key, password and code there is, and where a database keeps what came of it. What must be said or tested of all of them goes
//! through [`Credential::all`]: `docs/security.md` has a row for each, and each has a canary (`tests/it/secrets.rs`). A column that holds bytes and
//! is named by no kind fails a test, so nothing new is sealed or hashed without being entered here.

use crate::KeyKind;

/// A kind of key, password or code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// What callers of the Console carry.
    OfConsole(KeyKind),
    /// Of a person, for the pages.
    PersonPassword,
    /// Passkeys and security keys.
    Passkey,
    /// What an authenticator app shares with the Console.
    AuthenticatorSecret,
    /// In place of a second factor.
    RecoveryCode,
    /// A question for a second factor, and what a page gave for the answer.
    FactorChallenge,
    /// By which a browser is known again.
    DeviceCookie,
    /// Of the mail server.
    MailPassword,
    /// Of the database's server.
    DatabasePassword,
    /// By which the Console asks a KMS.
    KmsToken,
    /// At the root of everything that the Console seals.
    RootKey,
    /// Of an organization.
    DataKey,
    /// Of what belongs to people.
    PeopleDataKey,
    /// Of the keyed hashes.
    LookupKey,
    /// Of device cookies.
    CookieKey,
    /// Of a Rack.
    RackPassword,
    /// That a Rack signed.
    RackToken,
    /// By which it signs.
    RackSigningKey,
    /// By which it seals.
    RackStateKey,
    /// What a Rack keeps of its apps: environments and configs.
    AppEnvironment,
    /// Of a private image registry.
    RegistryPassword,
    /// Of a database or queue that a Rack runs for an app.
    ResourcePassword,
    /// Of a certificate that the router shows for an app.
    AppCertificateKey,
    /// At an authority that gives certificates to the router.
    AcmeAccount,
    /// By which a Rack logs in to its hosts.
    HostKey,
    /// Of a server.
    TlsKey,
}

impl Credential {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let of_console = KeyKind::ALL.map(Self::OfConsole);
        let others = [
            Self::PersonPassword,
            Self::Passkey,
            Self::AuthenticatorSecret,
            Self::RecoveryCode,
            Self::FactorChallenge,
            Self::DeviceCookie,
            Self::MailPassword,
            Self::DatabasePassword,
            Self::KmsToken,
            Self::RootKey,
            Self::DataKey,
            Self::PeopleDataKey,
            Self::LookupKey,
            Self::CookieKey,
            Self::RackPassword,
            Self::RackToken,
            Self::RackSigningKey,
            Self::RackStateKey,
            Self::AppEnvironment,
            Self::RegistryPassword,
            Self::ResourcePassword,
            Self::AppCertificateKey,
            Self::AcmeAccount,
            Self::HostKey,
            Self::TlsKey,
        ];
        of_console.into_iter().chain(others).collect()
    }

    /// With which its row in the table of `docs/security.md` begins.
    pub fn name(self) -> &'static str {
        match self {
            Self::OfConsole(KeyKind::User) => "user API key",
            Self::OfConsole(KeyKind::Deploy) => "deploy key",
            Self::OfConsole(KeyKind::Setup) => "setup code",
            Self::OfConsole(KeyKind::Session) => "session `",
            Self::OfConsole(KeyKind::CliSession) => "cli-session",
            Self::OfConsole(KeyKind::Invitation) => "invitation code",
            Self::OfConsole(KeyKind::Reset) => "reset code",
            Self::OfConsole(KeyKind::Authorization) => "authorization code",
            Self::OfConsole(KeyKind::Device) => "device code",
            Self::PersonPassword => "password of a person",
            Self::Passkey => "passkey",
            Self::AuthenticatorSecret => "secret of an authenticator app",
            Self::RecoveryCode => "recovery code",
            Self::FactorChallenge => "challenge of a second factor",
            Self::DeviceCookie => "device cookie",
            Self::MailPassword => "mail server's password",
            Self::DatabasePassword => "database server's password",
            Self::KmsToken => "KMS token",
            Self::RootKey => "root key",
            Self::DataKey => "data key, one for each organization",
            Self::PeopleDataKey => "data key of people",
            Self::LookupKey => "lookup key",
            Self::CookieKey => "cookie key",
            Self::RackPassword => "Rack password",
            Self::RackToken => "Rack token",
            Self::RackSigningKey => "Rack signing key",
            Self::RackStateKey => "Rack state key",
            Self::AppEnvironment => "environment of an app",
            Self::RegistryPassword => "password of an image registry",
            Self::ResourcePassword => "password of a resource",
            Self::AppCertificateKey => "key of an app's certificate",
            Self::AcmeAccount => "ACME account",
            Self::HostKey => "SSH key of an instance",
            Self::TlsKey => "TLS key",
        }
    }

    /// The columns, as `table.column`, that hold it sealed or wrapped, or a hash of it: the Console's, then the Rack's.
    pub fn columns(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::OfConsole(KeyKind::User | KeyKind::Deploy | KeyKind::Session | KeyKind::CliSession) => (&["keys.hash"], &[]),
            Self::OfConsole(KeyKind::Setup) => (&["setup.code_hash"], &[]),
            Self::OfConsole(KeyKind::Invitation) => (&["invitations.code_hash"], &[]),
            Self::OfConsole(KeyKind::Reset) => (&["resets.code_hash", "resets.before_hash"], &[]),
            Self::OfConsole(KeyKind::Authorization) => (&["authorization_codes.code_hash"], &[]),
            Self::OfConsole(KeyKind::Device) => (&["device_authorizations.device_hash", "device_authorizations.user_hash"], &[]),
            Self::Passkey => (&["passkeys.credential_id"], &[]),
            Self::AuthenticatorSecret => (&["totp.secret"], &[]),
            Self::RecoveryCode => (&["recovery_codes.code_hash"], &[]),
            Self::FactorChallenge => (&["challenges.id_hash", "challenges.state", "challenges.proof_hash"], &[]),
            Self::DataKey | Self::PeopleDataKey | Self::LookupKey | Self::CookieKey => (&["data_keys.wrapped", "data_keys.key_id"], &[]),
            Self::RackPassword => (
                &["racks.password", "rack_rolls.next", "rack_rolls.before"],
                &["passwords.hash", "passwords.encoded", "cut_passwords.hash"],
            ),
            Self::RackSigningKey => (&[], &["signers.key"]),
            Self::AppEnvironment => (&[], &["releases.env", "configs.value", "builds.options"]),
            Self::RegistryPassword => (&[], &["registries.password"]),
            Self::ResourcePassword => (&[], &["resources.password"]),
            Self::AppCertificateKey => (&[], &["certificates.key"]),
            Self::AcmeAccount => (&[], &["acme_accounts.credentials"]),
            Self::HostKey => (&[], &["host_keys.private", "host_keys.other_private"]),
            Self::DeviceCookie => (&["guesses.subject"], &[]),
            // Argon2's own text, in `users`; what lives in files, variables and memory only; ids of tokens.
            Self::PersonPassword
            | Self::MailPassword
            | Self::DatabasePassword
            | Self::KmsToken
            | Self::RootKey
            | Self::RackToken
            | Self::RackStateKey
            | Self::TlsKey => (&[], &[]),
        }
    }
}
