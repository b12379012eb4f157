//! v3: budgets of apps and what apps cost, in US dollars.

use std::collections::BTreeMap;

use super::{is_false, is_none_at_all, is_zero, shapes};
use crate::time::Time;

shapes! {
    /// What an app may cost.
    #[derive(Debug)]
    pub struct AppBudget {
        /// Dollars each month.
        monthly_cap_usd: f64 = "monthly-cap-usd",
        /// Percent of the cap at which to warn.
        #[serde(skip_serializing_if = "is_zero")]
        alert_threshold_percent: f64 = "alert-threshold-percent",
        /// `alert-only`, `block-new-deploys` or `auto-shutdown`.
        #[serde(skip_serializing_if = "String::is_empty")]
        at_cap_action: String = "at-cap-action",
        /// Factor on list prices, 0.1..1.5.
        #[serde(skip_serializing_if = "is_zero")]
        pricing_adjustment: f64 = "pricing-adjustment",
        /// Who changed the cap last.
        #[serde(skip_serializing_if = "String::is_empty")]
        last_cap_mutation_by: String = "last-cap-mutation-by",
    }

    /// What an app has cost this month.
    #[derive(Debug)]
    pub struct AppBudgetState {
        /// Start of the month.
        month_start: Time = "month-start",
        /// Dollars so far.
        current_month_spend_usd: f64 = "current-month-spend-usd",
        /// When that was reckoned.
        current_month_spend_as_of: Time = "current-month-spend-as-of",
        /// When the warning went out; zero if not.
        alert_fired_at_threshold: Time = "alert-fired-at-threshold",
        /// When the cap was passed; zero if not.
        alert_fired_at_cap: Time = "alert-fired-at-cap",
        /// Whether deploys are blocked.
        #[serde(skip_serializing_if = "is_false")]
        circuit_breaker_tripped: bool = "circuit-breaker-tripped",
        /// Who let them through again.
        #[serde(skip_serializing_if = "String::is_empty")]
        circuit_breaker_ack_by: String = "circuit-breaker-ack-by",
        /// When; zero if not.
        circuit_breaker_ack_at: Time = "circuit-breaker-ack-at",
        /// Warnings so far.
        #[serde(skip_serializing_if = "is_none_at_all")]
        warning_count: i64 = "warning-count",
        /// Dollars by service; `_build` and `_unattributed` are none.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        per_service_spend_usd: BTreeMap<String, f64> = "per-service-spend-usd",
        /// Machine type by service.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        per_service_instance_type: BTreeMap<String, String> = "per-service-instance-type",
        /// Dollars by service and `machine:capacity` type.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        per_service_spend_by_variant: BTreeMap<String, BTreeMap<String, f64>> = "per-service-spend-by-variant",
        /// Processes by service and `machine:capacity` type, when last looked at.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        per_service_variant_pods_last_tick: BTreeMap<String, BTreeMap<String, i64>> = "per-service-variant-pods-last-tick",
    }

    /// The answer to `GET /apps/{app}/budget`.
    #[derive(Debug)]
    pub struct AppBudgetReport {
        /// The budget; none when the app has none.
        config: Option<AppBudget> = "config",
        /// How it stands.
        state: Option<AppBudgetState> = "state",
    }

    /// What an app costs, service by service.
    #[derive(Debug)]
    pub struct AppCost {
        /// The app.
        app: String = "app",
        /// Start of the month.
        month_start: Time = "month-start",
        /// When it was reckoned.
        as_of: Time = "as-of",
        /// Dollars so far.
        spend_usd: f64 = "spend-usd",
        /// By service.
        breakdown: Vec<ServiceCost> = "breakdown",
        /// By service and machine type.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        variant_breakdown: Vec<VariantCost> = "variant-breakdown",
        /// Where prices come from.
        pricing_source: String = "pricing-source",
        /// Which prices.
        pricing_table_version: String = "pricing-table-version",
        /// Factor on them.
        pricing_adjustment: f64 = "pricing-adjustment",
        /// What could not be priced.
        #[serde(skip_serializing_if = "is_none_at_all")]
        warning_count: i64 = "warning-count",
        /// Whether the Rack keeps track.
        #[serde(skip_serializing_if = "is_false")]
        tracking_enabled: bool = "tracking-enabled",
    }

    /// What a service costs.
    #[derive(Debug)]
    pub struct ServiceCost {
        /// The service.
        service: String = "service",
        /// Card hours.
        gpu_hours: f64 = "gpu-hours",
        /// Core hours.
        cpu_hours: f64 = "cpu-hours",
        /// Gigabyte hours.
        mem_gb_hours: f64 = "mem-gb-hours",
        /// On which machines.
        #[serde(skip_serializing_if = "String::is_empty")]
        instance_type: String = "instance-type",
        /// Dollars.
        spend_usd: f64 = "spend-usd",
        /// How it was shared out.
        #[serde(skip_serializing_if = "String::is_empty")]
        attribution: String = "attribution",
    }

    /// What a service costs on one machine type.
    #[derive(Debug)]
    pub struct VariantCost {
        /// The service.
        service: String = "service",
        /// The machine type.
        instance_type: String = "instance-type",
        /// `on-demand`, `spot` or `unknown`.
        capacity_type: String = "capacity-type",
        /// Dollars.
        spend_usd: f64 = "spend-usd",
        /// Processes.
        #[serde(skip_serializing_if = "is_none_at_all")]
        replicas: i64 = "replicas",
    }

    /// What would happen at the cap.
    #[derive(Debug)]
    pub struct AppBudgetSimulation {
        /// The app.
        app: String = "app",
        /// As in [`AppBudget`].
        at_cap_action: String = "at-cap-action",
        /// Who is told.
        webhook_url: String = "webhook-url",
        /// How long before.
        notify_before_minutes: i64 = "notify-before-minutes",
        /// A Go duration.
        shutdown_grace_period: String = "shutdown-grace-period",
        /// Which first.
        shutdown_order: String = "shutdown-order",
        /// How it comes back.
        recovery_mode: String = "recovery-mode",
        /// Each service.
        eligibility: Vec<AppBudgetEligibility> = "eligibility",
        /// In order.
        would_shut_down_services: Vec<String> = "would-shut-down-services",
        /// How many.
        would_shut_down_count: i64 = "would-shut-down-count",
        /// Dollars.
        estimated_cost_saved_usd_per_hour: f64 = "estimated-cost-saved-usd-per-hour",
        /// When.
        simulated_at: Time = "simulated-at",
    }

    /// Whether a service would be shut down.
    #[derive(Debug)]
    pub struct AppBudgetEligibility {
        /// The service.
        service: String = "service",
        /// Whether.
        eligible: bool = "eligible",
        /// Why not.
        #[serde(skip_serializing_if = "String::is_empty")]
        reason: String = "reason",
        /// Processes.
        replicas: i64 = "replicas",
        /// Dollars.
        cost_usd_per_hour: f64 = "cost-usd-per-hour",
    }

    /// The answer to `POST /apps/{app}/budget/dismiss-recovery`.
    #[derive(Debug)]
    pub struct AppBudgetDismissed {
        /// The app.
        app: String = "app",
        /// `dismissed`, `already-dismissed` or `no-banner`.
        status: String = "status",
    }

    /// How far a shutdown at the cap is. Keys in camel case.
    #[derive(Debug)]
    pub struct AppBudgetShutdown {
        /// 1
        schema_version: i64 = "schemaVersion",
        /// `None`, as all times here, when it has not happened.
        shutdown_at: Option<Time> = "shutdownAt",
        /// Announced.
        armed_at: Option<Time> = "armedAt",
        /// Undone.
        restored_at: Option<Time> = "restoredAt",
        /// Too late to undo.
        expired_at: Option<Time> = "expiredAt",
        /// How long before.
        #[serde(skip_serializing_if = "is_none_at_all")]
        notify_before_minutes: i64 = "notifyBeforeMinutes",
        /// How it comes back.
        recovery_mode: String = "recoveryMode",
        /// Which first.
        shutdown_order: String = "shutdownOrder",
        /// Which run.
        shutdown_tick_id: String = "shutdownTickId",
        /// Of the manifest then.
        manifest_sha256: String = "manifestSha256",
        /// How many services.
        eligible_service_count: i64 = "eligibleServiceCount",
        /// In order.
        services: Vec<AppBudgetShutdownService> = "services",
        /// Not again before.
        flap_suppressed_until: Option<Time> = "flapSuppressedUntil",
        /// By a person.
        #[serde(skip_serializing_if = "Option::is_none")]
        recovery_banner_dismissed_at: Option<Time> = "recoveryBannerDismissedAt",
        /// When this was told, as those that follow.
        armed_notification_fired_at: Option<Time> = "armedNotificationFiredAt",
        /// Shutdown.
        fired_notification_fired_at: Option<Time> = "firedNotificationFiredAt",
        /// Nothing to do.
        noop_notification_fired_at: Option<Time> = "noopNotificationFiredAt",
        /// Called off.
        cancelled_notification_fired_at: Option<Time> = "cancelledNotificationFiredAt",
        /// Too late.
        expired_notification_fired_at: Option<Time> = "expiredNotificationFiredAt",
        /// Not again yet.
        flap_suppressed_notification_fired_at: Option<Time> = "flapSuppressedNotificationFiredAt",
        /// Did not work.
        failed_notification_fired_at: Option<Time> = "failedNotificationFiredAt",
        /// Undone.
        restored_notification_fired_at: Option<Time> = "restoredNotificationFiredAt",
        /// How services were found.
        #[serde(skip_serializing_if = "String::is_empty")]
        discovery_reason: String = "discoveryReason",
        /// Why it did not work.
        #[serde(skip_serializing_if = "String::is_empty")]
        failure_reason: String = "failureReason",
    }

    /// A service in a shutdown.
    #[derive(Debug)]
    pub struct AppBudgetShutdownService {
        /// Its name.
        name: String = "name",
        /// Its scale before.
        original_scale: AppBudgetShutdownScale = "originalScale",
        /// Seconds.
        original_grace_period_seconds: i64 = "originalGracePeriodSeconds",
        /// Its scaler.
        keda_scaled_object: Option<AppBudgetShutdownKeda> = "kedaScaledObject",
        /// Its place in the order.
        shutdown_sequence_index: i64 = "shutdownSequenceIndex",
        /// When.
        shutdown_at: Option<Time> = "shutdownAt",
    }

    /// The scale of a service before a shutdown.
    #[derive(Debug)]
    pub struct AppBudgetShutdownScale {
        /// Wanted.
        count: i64 = "count",
        /// Fewest.
        min: i64 = "min",
        /// Most.
        max: i64 = "max",
        /// Running.
        replicas: i64 = "replicas",
    }

    /// The scaler of a service in a shutdown.
    #[derive(Debug)]
    pub struct AppBudgetShutdownKeda {
        /// Its name.
        name: String = "name",
        /// Whether it is held still.
        paused_replicas_annotation_set: bool = "pausedReplicasAnnotationSet",
    }
}
