//! v3: the report of `convox diagnose`. Keys in camel case, unlike everywhere else.

use super::{is_false, shapes};
use crate::time::Time;

shapes! {
    /// What is wrong with an app.
    #[derive(Debug)]
    pub struct Diagnose {
        /// Where it runs.
        namespace: String = "namespace",
        /// The Rack.
        rack: String = "rack",
        /// The app.
        app: String = "app",
        /// When the report was made.
        timestamp: Time = "timestamp",
        /// Its services.
        #[serde(skip_serializing_if = "Option::is_none")]
        overview: Option<DiagnoseOverview> = "overview",
        /// What does not start.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        init_pods: Vec<DiagnoseInitPod> = "initPods",
        /// What is not well.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        pods: Vec<DiagnosePod> = "pods",
        /// Counts.
        #[serde(skip_serializing_if = "Option::is_none")]
        summary: Option<DiagnoseSummary> = "summary",
    }

    /// Services and what happened to them.
    #[derive(Debug)]
    pub struct DiagnoseOverview {
        /// Each service.
        services: Vec<DiagnoseService> = "services",
        /// Newest last.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        events: Vec<DiagnoseEvent> = "events",
    }

    /// A service.
    #[derive(Debug)]
    pub struct DiagnoseService {
        /// Its name.
        name: String = "name",
        /// Wanted.
        desired_replicas: i64 = "desiredReplicas",
        /// Answering.
        ready_replicas: i64 = "readyReplicas",
        /// Of the newest release.
        updated_replicas: i64 = "updatedReplicas",
        /// In a word.
        status: String = "status",
        /// Why it does not move.
        #[serde(skip_serializing_if = "String::is_empty")]
        stall_reason: String = "stallReason",
        /// One on each machine.
        #[serde(skip_serializing_if = "is_false")]
        agent: bool = "agent",
    }

    /// Something that happened.
    #[derive(Debug)]
    pub struct DiagnoseEvent {
        /// When.
        timestamp: Time = "timestamp",
        /// `Normal` or `Warning`.
        r#type: String = "type",
        /// In a word.
        reason: String = "reason",
        /// To what.
        object: String = "object",
        /// In a sentence.
        message: String = "message",
        /// What to do.
        #[serde(skip_serializing_if = "String::is_empty")]
        hint: String = "hint",
    }

    /// A process that does not get past its preparation.
    #[derive(Debug)]
    pub struct DiagnoseInitPod {
        /// Its name.
        name: String = "name",
        /// Its service.
        service: String = "service",
        /// How far it is.
        phase: String = "phase",
        /// Its steps.
        init_containers: Vec<DiagnoseContainer> = "initContainers",
    }

    /// A step of preparation.
    #[derive(Debug)]
    pub struct DiagnoseContainer {
        /// Its name.
        name: String = "name",
        /// Its state.
        state: String = "state",
        /// What it said.
        #[serde(skip_serializing_if = "String::is_empty")]
        logs: String = "logs",
    }

    /// A process that is not well.
    #[derive(Debug)]
    pub struct DiagnosePod {
        /// Its name.
        name: String = "name",
        /// Its service.
        service: String = "service",
        /// How far it is.
        phase: String = "phase",
        /// `1/1`
        ready: String = "ready",
        /// Since it began.
        age_seconds: i64 = "ageSeconds",
        /// How often it began anew.
        restarts: i64 = "restarts",
        /// unhealthy, not-ready, new or healthy.
        classification: String = "classification",
        /// More than the phase says.
        #[serde(skip_serializing_if = "String::is_empty")]
        state_detail: String = "stateDetail",
        /// What to do.
        #[serde(skip_serializing_if = "String::is_empty")]
        hint: String = "hint",
        /// What it said.
        #[serde(skip_serializing_if = "String::is_empty")]
        logs: String = "logs",
        /// What the one before it said.
        #[serde(skip_serializing_if = "String::is_empty")]
        previous_logs: String = "previousLogs",
        /// What happened to it.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        events: Vec<DiagnoseEvent> = "events",
    }

    /// Counts of processes.
    #[derive(Debug)]
    pub struct DiagnoseSummary {
        /// All.
        total: i64 = "total",
        /// Failing.
        unhealthy: i64 = "unhealthy",
        /// Running but not answering.
        not_ready: i64 = "notReady",
        /// Younger than the age asked for.
        new: i64 = "new",
        /// Well.
        healthy: i64 = "healthy",
    }
}
