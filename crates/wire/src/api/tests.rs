//! The shapes as clients and servers of both generations write and read them.

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::*;

fn keys(shape: &impl Serialize) -> String {
    serde_json::to_value(shape).unwrap().as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ")
}

#[test]
fn go_servers_are_understood_nulls_and_all() {
    let app: App = serde_json::from_value(json!({
        "name": "web", "status": "running", "locked": null, "parameters": null, "new-key": {"x": 1}, "budget": {"monthly-cap-usd": 5}
    }))
    .unwrap();
    assert_eq!((app.name.as_str(), app.locked, app.parameters.len()), ("web", false, 0));
    assert_eq!(app.budget.map(|budget| budget.monthly_cap_usd), Some(5.0));
    let service: Service =
        serde_json::from_str(r#"{"name":"web","ports":null,"nlb":null,"count":2,"autoscale":{"enabled":true}}"#).unwrap();
    assert_eq!((service.count, service.ports.len(), service.autoscale.map(|scale| scale.enabled)), (2, 0, Some(true)));
    let build: Build = serde_json::from_str(
        r#"{"id":"BABCDEFGHIJ","app":"web","status":"running","started":"2026-01-02T03:04:05.6Z","ended":"0001-01-01T00:00:00Z","git-sha":"","wildcard-domain":false}"#,
    )
    .unwrap();
    assert!(build.ended.is_zero() && !build.started.is_zero());
}

#[test]
fn a_console_gives_an_organization_as_an_object_or_as_its_name() {
    let racks: Vec<RackEntry> = serde_json::from_str(
        r#"[{"name":"a","organization":{"name":"acme","id":null,"x":[1]}},{"name":"b","organization":"beta"},{"name":"c","organization":null},{"name":"d"}]"#,
    )
    .unwrap();
    assert_eq!(racks.iter().map(RackEntry::path).collect::<Vec<_>>(), ["acme/a", "beta/b", "c", "d"]);
    assert!(serde_json::from_str::<RackEntry>(r#"{"organization":7}"#).is_err());
    assert_eq!(serde_json::from_str::<Object>(r#"{"url":"object://a/b"}"#).unwrap().url, "object://a/b");
    let machine: Machine = serde_json::from_str(r#"{"id":"m1","Name":"n","dimensions":{"vcpu":"1"}}"#).unwrap();
    assert_eq!((machine.id.as_str(), machine.name.as_str(), machine.dimensions.len()), ("m1", "n", 1));
}

/// The keys that are always there are those of v2 servers; what only v3 has is omitted while it is empty.
#[test]
fn our_answers_have_the_names_that_clients_read() {
    assert_eq!(keys(&App::default()), "locked name release router status parameters");
    assert_eq!(
        keys(&Build::default()),
        "id app description entrypoint git-sha logs manifest process release reason status wildcard-domain started ended"
    );
    assert_eq!(keys(&Release::default()), "id app build env manifest description created");
    assert_eq!(keys(&Process::default()), "id app command cpu host image instance memory name ports release started status");
    assert_eq!(keys(&Service::default()), "count cpu domain memory name nlb ports");
    assert_eq!(keys(&ServicePort::default()), "balancer certificate container");
    assert_eq!(keys(&ServiceNlb::default()), "container-port port protocol scheme certificate");
    assert_eq!(keys(&Instance::default()), "agent cpu id memory private-ip processes public-ip status started");
    assert_eq!(keys(&System::default()), "count domain name provider rack-domain region status type version");
    assert_eq!(keys(&Resource::default()), "name type url");
    assert_eq!(keys(&ResourceType::default()), "name parameters");
    assert_eq!(keys(&ResourceParameter::default()), "default description name");
    assert_eq!(keys(&Certificate::default()), "id domain domains expiration");
    assert_eq!(keys(&Registry::default()), "server username password");
    assert_eq!(keys(&Object::default()), "Url");
    assert_eq!(keys(&Metric::default()), "name values");
    assert_eq!(keys(&MetricValue::default()), "avg count max min sum time");
    assert_eq!(
        keys(&Capacity::default()),
        "cluster-cpu cluster-memory instance-cpu instance-memory process-count process-cpu process-memory process-width"
    );
    assert_eq!(keys(&SystemJwt::default()), "token");
    assert_eq!(keys(&KeyPair::default()), "name private-key");
    assert_eq!(keys(&RackEntry::default()), "name provider status");
    assert_eq!(keys(&RackDetail::default()), "name provider status deletable parameters state version");
    assert_eq!(json!(RackDetail::default())["state"], Value::Null, "which is how v3 clients know a Rack that updates itself");
    assert_eq!(keys(&Runtime::default()), "id title");
    assert_eq!(keys(&Workflows::default()), "oid workflows");
    assert_eq!(keys(&Workflow::default()), "id name kind");
    assert_eq!(keys(&WorkflowRun::default()), "jod_id");
    assert_eq!(keys(&Machine::default()), "ID Name organization_info Dimensions Age created_at_rfc3339");
}

#[test]
fn v3_has_its_names_too() {
    assert_eq!(keys(&AppBudget::default()), "monthly-cap-usd");
    assert_eq!(keys(&AppBudgetReport::default()), "config state");
    assert_eq!(
        keys(&AppBudgetState::default()),
        "month-start current-month-spend-usd current-month-spend-as-of alert-fired-at-threshold alert-fired-at-cap circuit-breaker-ack-at"
    );
    assert_eq!(
        keys(&AppCost::default()),
        "app month-start as-of spend-usd breakdown pricing-source pricing-table-version pricing-adjustment"
    );
    assert_eq!(keys(&ServiceCost::default()), "service gpu-hours cpu-hours mem-gb-hours spend-usd");
    assert_eq!(keys(&Diagnose::default()), "namespace rack app timestamp");
    assert_eq!(keys(&DiagnoseSummary::default()), "total unhealthy notReady new healthy");
    assert_eq!(keys(&DiagnoseService::default()), "name desiredReplicas readyReplicas updatedReplicas status");
    assert_eq!(keys(&DiagnosePod::default()), "name service phase ready ageSeconds restarts classification");
    assert_eq!(keys(&AppConfig::default()), "name value");
    assert_eq!(keys(&Balancer::default()), "name endpoint ports service");
    assert_eq!(keys(&BalancerPort::default()), "protocol source target");
    assert_eq!(keys(&LetsEncryptSolver::default()), "id dns-zones route53");
    assert_eq!(keys(&LetsEncryptRoute53::default()), "hosted-zone-id region role");
    assert_eq!(keys(&ServiceTriggers::default()), "min max triggers");
    let text = r#"{"name":"web","cpu":0.5,"ports":[],"gpu-util":12.5,"gpu-mem-used":1,"gpu-mem-total":2,"gpu-tensor-active":0,"gpu-sm-active":0,"gpu-dram-active":0,"gpu-fp16-active":0,"gpu-fp32-active":0,"gpu-power-w":70,"service":"web","gpu":1}"#;
    let process: Process = serde_json::from_str(text).unwrap();
    assert_eq!((process.gpu, process.gpu_util, process.gpu_fp16_active, process.gpu_power_w), (1, Some(12.5), Some(0.0), Some(70.0)));
    assert!(keys(&process).ends_with(
        "service gpu-util gpu-mem-used gpu-mem-total gpu-tensor-active gpu-sm-active gpu-dram-active gpu-fp16-active gpu-fp32-active gpu-power-w"
    ));
}

#[test]
fn the_print_is_that_of_go() {
    let app = App { name: "a<b>&c\u{2028}".into(), parameters: [("K".into(), "\"\\\n".into())].into(), ..App::default() };
    let text = to_go_json(&[app]).unwrap();
    let expected = "[\n  {\n    \"locked\": false,\n    \"name\": \"a\\u003cb\\u003e\\u0026c\\u2028\",\n    \"release\": \"\",\n    \"router\": \"\",\n    \"status\": \"\",\n    \"parameters\": {\n      \"K\": \"\\\"\\\\\\n\"\n    }\n  }\n]\n";
    assert_eq!(text, expected);
    let numbers = json!([1.0, 0.5, -2.0, 1e21, 1e-7, 0.0, 123_456_789.25, 7]);
    assert_eq!(to_go_json(&numbers).unwrap().replace("\n  ", ""), "[1,0.5,-2,1e21,1e-7,0,123456789.25,7\n]\n");
    assert_eq!(to_go_json(&json!([])).unwrap(), "[]\n");
    assert_eq!(to_go_json(&json!({})).unwrap(), "{}\n");
    let build = Build { started: "2026-01-02T03:04:05.600Z".parse().unwrap(), ..Build::default() };
    assert!(to_go_json(&build).unwrap().contains("\"started\": \"2026-01-02T03:04:05.6Z\",\n  \"ended\": \"0001-01-01T00:00:00Z\""));
}

#[test]
fn debug_shows_no_secret() {
    let secret = "s3cr3t-canary".to_owned();
    let shown = [
        format!("{:?}", Release { env: format!("PASSWORD={secret}"), ..Release::default() }),
        format!("{:?}", Registry { password: secret.clone(), ..Registry::default() }),
        format!(
            "{:?}",
            Resource {
                url: format!("postgres://u:{secret}@h"),
                parameters: [("Password".into(), secret.clone())].into(),
                ..Resource::default()
            }
        ),
        format!("{:?}", SystemJwt { token: secret.clone() }),
        format!("{:?}", KeyPair { private_key: Some(secret.clone()), ..KeyPair::default() }),
        format!(
            "{:?}",
            System {
                parameters: [("Password".into(), secret.clone())].into(),
                outputs: [("P".into(), secret.clone())].into(),
                ..System::default()
            }
        ),
        format!("{:?}", AppConfig { value: secret.clone(), ..AppConfig::default() }),
        format!("{:?}", SessionId { id: secret.clone() }),
        format!(
            "{:?}",
            RackDetail { state: Some(secret.clone()), parameters: Some([("P".into(), secret.clone())].into()), ..RackDetail::default() }
        ),
        format!("{:?}", App { parameters: [("P".into(), secret.clone())].into(), ..App::default() }),
    ];
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
}

/// Every shape reads an object of nothing, one of nulls, and what it wrote itself.
fn survives<T: Serialize + DeserializeOwned + Default + PartialEq + std::fmt::Debug>() {
    let default = T::default();
    let mut value = serde_json::to_value(&default).unwrap();
    assert_eq!(serde_json::from_value::<T>(value.clone()).unwrap(), default);
    for (_, field) in value.as_object_mut().unwrap() {
        *field = Value::Null;
    }
    assert_eq!(serde_json::from_value::<T>(value).unwrap(), default, "nulls");
    assert_eq!(serde_json::from_value::<T>(json!({"unknown": [{"a": null}]})).unwrap(), default, "nothing");
}

#[test]
fn every_shape_reads_nothing_nulls_and_itself() {
    macro_rules! all {
        ($($shape:ty),+ $(,)?) => { $(survives::<$shape>();)+ };
    }
    all!(
        App,
        AppConfig,
        Balancer,
        BalancerPort,
        ManifestService,
        ManifestServiceScale,
        AppBudget,
        AppBudgetDismissed,
        AppBudgetEligibility,
        AppBudgetReport,
        AppBudgetShutdown,
        AppBudgetShutdownKeda,
        AppBudgetShutdownScale,
        AppBudgetShutdownService,
        AppBudgetSimulation,
        AppBudgetState,
        AppCost,
        ServiceCost,
        VariantCost,
        Build,
        Object,
        Release,
        Certificate,
        LetsEncrypt,
        LetsEncryptRoute53,
        LetsEncryptSolver,
        Registry,
        Identity,
        Machine,
        Organization,
        RackDetail,
        RackEntry,
        RackHost,
        Runtime,
        SessionId,
        Workflow,
        WorkflowRun,
        Workflows,
        Diagnose,
        DiagnoseContainer,
        DiagnoseEvent,
        DiagnoseInitPod,
        DiagnoseOverview,
        DiagnosePod,
        DiagnoseService,
        DiagnoseSummary,
        Process,
        Resource,
        ResourceParameter,
        ResourceType,
        Service,
        ServiceAutoscale,
        ServiceNlb,
        ServicePort,
        ServiceTriggers,
        Trigger,
        Capacity,
        Instance,
        KeyPair,
        Metric,
        MetricValue,
        ServiceMetrics,
        System,
        SystemJwt,
    );
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Text(String);

proptest! {
    #[test]
    fn the_print_of_any_text_reads_back(text in ".*") {
        let printed = to_go_json(&Text(text.clone())).unwrap();
        let unescaped = printed.contains(['<', '>', '&', '\u{2028}', '\u{2029}']);
        prop_assert!(!unescaped);
        prop_assert_eq!(serde_json::from_str::<Text>(&printed).unwrap(), Text(text));
    }

    #[test]
    fn the_print_of_any_number_reads_back(number in any::<f64>().prop_filter("JSON has no others", |number| number.is_finite())) {
        // Read by the standard library: serde_json's reader is off by a unit in the last place for some long numbers.
        prop_assert_eq!(to_go_json(&number).unwrap().trim_end().parse::<f64>().unwrap().to_bits(), number.to_bits());
    }

    #[test]
    fn no_json_panics(text in r#"(\{|\}|\[|\]|"|:|,|name|null|organization|[0-9a-z\\]){0,40}"#) {
        let _ = serde_json::from_str::<Service>(&text);
        let _ = serde_json::from_str::<RackEntry>(&text);
    }
}
