//! Options of calls on apps.

use super::{Map, calls};

calls! {
    /// `POST /apps`; the name itself is a loose value, see [`super::loose`].
    AppCreateOptions {
        /// Default `2`.
        generation: String = form "generation";
        /// v3.
        timeout: i64 = form "timeout";
    }

    /// `PUT /apps/{app}`
    AppUpdateOptions {
        /// Whether deletion is refused.
        lock: bool = form "lock";
        /// Settings to change.
        parameters: Map = form "parameters", secret;
    }

    /// v3: `GET /apps/{app}/diagnose`
    DiagnoseOptions {
        /// Comma-separated; all when absent.
        checks: String = query "checks";
        /// Comma-separated; all when absent.
        services: String = query "services";
        /// Seconds below which a process counts as new; default 300.
        age: i64 = query "age";
        /// Also what is well.
        all: bool = query "all";
        /// Of each log; default 200.
        lines: i64 = query "lines";
        /// Default true.
        events: bool = query "events";
        /// Also logs of the process before; default true.
        previous: bool = query "previous";
    }

    /// v3: `POST` and `DELETE /apps/{app}/budget`
    AppBudgetOptions {
        /// Dollars, as text.
        monthly_cap_usd: String = form "monthly-cap-usd";
        /// Percent.
        alert_threshold_percent: i64 = form "alert-threshold-percent";
        /// `alert-only`, `block-new-deploys`, `auto-shutdown`.
        at_cap_action: String = form "at-cap-action";
        /// 0.1 to 1.5, as text.
        pricing_adjustment: String = form "pricing-adjustment";
        /// Who does it.
        ack_by: String = form_or_header "ack_by";
    }

    /// v3: `POST /apps/{app}/budget/reset` and `.../dismiss-recovery`
    AppBudgetResetOptions {
        /// Who does it.
        ack_by: String = form_or_header "ack_by";
        /// Also before the cooldown has passed.
        force_clear_cooldown: bool = form_or_header "force_clear_cooldown";
        /// Begin the month anew.
        reset_period: bool = form_or_header "reset_period";
    }
}

impl AppCreateOptions {
    /// `2` unless given.
    pub fn generation(&self) -> &str {
        self.generation.as_deref().filter(|text| !text.is_empty()).unwrap_or("2")
    }
}

impl DiagnoseOptions {
    /// 300 seconds unless given.
    pub fn age(&self) -> i64 {
        self.age.unwrap_or(300)
    }

    /// 200 unless given.
    pub fn lines(&self) -> i64 {
        self.lines.unwrap_or(200)
    }

    /// True unless given.
    pub fn events(&self) -> bool {
        self.events.unwrap_or(true)
    }

    /// True unless given.
    pub fn previous(&self) -> bool {
        self.previous.unwrap_or(true)
    }
}
