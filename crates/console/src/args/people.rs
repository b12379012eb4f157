//! `user`, `org`, `member`, `invitation`: who there is, and where they belong.

use clap::Subcommand;
use convox_model::Role;

use super::Common;

#[derive(Subcommand)]
pub(crate) enum User {
    /// Add a user, who is a member of nothing yet
    #[command(after_help = "Example:\n  convox-console user add ci@example.com")]
    Add {
        /// Their address
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// List users
    #[command(after_help = "Example:\n  convox-console user list --json")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Make a link with which somebody who forgot their password chooses a new one. It works once, within an hour
    #[command(after_help = "Example:\n  convox-console user reset-link bob@example.com --url https://console.example.com")]
    ResetLink {
        /// Their address
        email: String,
        /// Address of the Console
        #[arg(long, value_name = "URL", env = "CONVOX_CONSOLE_URL", value_parser = super::origin)]
        url: String,
        #[command(flatten)]
        common: Common,
    },
    /// Remove all second factors of somebody who lost them, and sign them out everywhere
    ///
    /// They sign in with their password, and add new ones. Their API keys stay; where a second factor is required they open nothing meanwhile.
    #[command(after_help = "Example:\n  convox-console user reset-factor bob@example.com")]
    ResetFactor {
        /// Their address
        email: String,
        #[command(flatten)]
        common: Common,
    },
    /// Sign somebody out everywhere, or everybody: browsers, and what a second factor opened for command lines. Keys stay
    ///
    /// At once, on all servers.
    #[command(after_help = "Examples:\n  convox-console user sign-out bob@example.com\n  convox-console user sign-out --all")]
    SignOut {
        /// Their address
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        email: Option<String>,
        /// Everybody
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a user with all memberships and keys; what they have open is cut
    #[command(after_help = "Example:\n  convox-console user remove bob@example.com")]
    Remove {
        /// Their address
        email: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Org {
    /// Make an organization
    #[command(after_help = "Example:\n  convox-console org create acme")]
    Create {
        /// Its name: lower case letters, digits and dashes
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// List organizations
    #[command(after_help = "Example:\n  convox-console org list")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Require a second factor of all members of an organization, or no longer
    ///
    /// Whoever has none is led to add one when they sign in, and their API keys open nothing before. Deploy keys go on: a machine cannot answer.
    #[command(after_help = "Examples:\n  convox-console org require-factor acme\n  convox-console org require-factor acme --off")]
    RequireFactor {
        /// Its name
        name: String,
        /// Require it no longer
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Give an organization another name. Its Racks are `NEW/rack` from then on
    #[command(after_help = "Example:\n  convox-console org rename acme --to acme-labs")]
    Rename {
        /// Its name
        name: String,
        /// Its new name
        #[arg(long, value_name = "NAME")]
        to: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Member {
    /// Add a member; somebody unknown becomes a user
    #[command(after_help = "Example:\n  convox-console member add bob@example.com --org acme --role developer")]
    Add {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// List members
    #[command(after_help = "Example:\n  convox-console member list --org acme")]
    List {
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Give a member another role
    #[command(after_help = "Example:\n  convox-console member role bob@example.com --org acme --role operator")]
    Role {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a member; what they have open on the organization's Racks is cut
    ///
    /// The keys of somebody who is then a member of no organization end too.
    #[command(after_help = "Example:\n  convox-console member remove bob@example.com --org acme")]
    Remove {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Subcommand)]
pub(crate) enum Invitation {
    /// Invite somebody; prints the link once. It works once, within a week
    #[command(after_help = "Example:\n  convox-console invitation create bob@example.com --org acme --role developer \\\n    \
                            --url https://console.example.com")]
    Create {
        /// Their address
        email: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        /// developer, operator or administrator
        #[arg(long)]
        role: Role,
        /// Address of the Console
        #[arg(long, value_name = "URL", env = "CONVOX_CONSOLE_URL", value_parser = super::origin)]
        url: String,
        #[command(flatten)]
        common: Common,
    },
    /// List open invitations
    #[command(after_help = "Example:\n  convox-console invitation list --org acme")]
    List {
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
    /// Withdraw an invitation
    #[command(after_help = "Example:\n  convox-console invitation withdraw 0199... --org acme")]
    Withdraw {
        /// As `invitation list` shows it
        id: String,
        /// Name of the organization
        #[arg(long, value_name = "NAME")]
        org: String,
        #[command(flatten)]
        common: Common,
    },
}
