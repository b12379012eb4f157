//! The JSON of the Rack and Console APIs, v2 and v3 fields together (protocol 5.2, 6.4). Unknown keys are ignored; `null` reads as the
//! empty value, since Go servers send it for nil; what only v3 has is left out of our answers while it is empty.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::time::Time;

/// JSON as Go servers print it: two spaces, `<>&` escaped, a newline at the end.
///
/// # Errors
/// Only when `value` cannot be JSON at all (a map with keys that are no texts).
pub fn to_go_json<T: Serialize + ?Sized>(value: &T) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string_pretty(value)?;
    if text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        // Inside JSON these can only stand in strings, where the escape means the same.
        for (plain, escaped) in [("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u{2028}", "\\u2028"), ("\u{2029}", "\\u2029")] {
            text = text.replace(plain, escaped);
        }
    }
    text.push('\n');
    Ok(text)
}

/// `null` as the default.
fn nullable<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// `null`, or an object of text.
pub type Parameters = BTreeMap<String, String>;

macro_rules! shapes {
    ($($(#[$about:meta])* $name:ident { $($(#[$meta:meta])* $field:ident : $type:ty $(= $wire:literal)? $(, $flag:literal)? ;)* })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
            #[serde(default, rename_all = "kebab-case")]
            pub struct $name {
                $(
                    $(#[$meta])*
                    #[serde(deserialize_with = "nullable" $(, rename = $wire)?)]
                    $(#[serde(skip_serializing_if = $flag)])?
                    pub $field: $type,
                )*
            }
        )*
    };
}

// Used by name in `skip_serializing_if`.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn zero_int(value: &i64) -> bool {
    *value == 0
}
fn none<T>(value: &Option<T>) -> bool {
    value.is_none()
}
fn empty(value: &str) -> bool {
    value.is_empty()
}
fn empty_list<T>(value: &[T]) -> bool {
    value.is_empty()
}
fn empty_map(value: &Parameters) -> bool {
    value.is_empty()
}

shapes! {
    /// An app.
    App {
        /// `2`
        generation: String, "empty";
        /// Whether deletion is refused.
        locked: bool;
        /// Its name.
        name: String;
        /// Id of the active release; empty when there is none.
        release: String;
        /// Host of the router in front of it.
        router: String;
        /// creating, running, updating, rollback, deleting, failed, new, unknown.
        status: String;
        /// Free-form settings.
        parameters: Parameters;
    }

    /// A build of an app's source.
    Build {
        /// `B` and ten letters.
        id: String;
        /// Its app.
        app: String;
        /// What the person said about it.
        description: String;
        /// Unused by our Racks.
        entrypoint: String;
        /// Commit, when the client knew it.
        git_sha: String = "git-sha";
        /// `object://` URL or text.
        logs: String;
        /// The `convox.yml` that it used.
        manifest: String;
        /// Process that builds.
        process: String;
        /// Release that it made; empty until complete.
        release: String;
        /// Why it failed.
        reason: String;
        /// created, running, complete, failed.
        status: String;
        /// Beginning.
        started: Time;
        /// End; zero until then.
        ended: Time;
        /// v2: whether services get wildcard domains.
        wildcard_domain: bool = "wildcard-domain";
        /// v3: image repository.
        repository: String, "empty";
    }

    /// A build with an environment, ready to run.
    Release {
        /// `R` and ten letters.
        id: String;
        /// Its app.
        app: String;
        /// Its build; empty when nothing was built yet.
        build: String;
        /// Lines of `K=V`. A secret.
        env: String;
        /// The `convox.yml` of its build.
        manifest: String;
        /// What made it.
        description: String;
        /// When.
        created: Time;
    }

    /// A running (or just ended) process.
    Process {
        /// Unique on its Rack.
        id: String;
        /// Its app.
        app: String;
        /// What it runs.
        command: String;
        /// Share of its limit, 0..1.
        cpu: f64;
        /// Address that it listens on.
        host: String;
        /// Image or source.
        image: String;
        /// Machine that it runs on.
        instance: String;
        /// Share of its limit, 0..1.
        memory: f64;
        /// Name of its service.
        name: String;
        /// `outside:inside` pairs.
        ports: Vec<String>;
        /// Its release.
        release: String;
        /// Beginning.
        started: Time;
        /// `running` and others.
        status: String;
        /// v2.
        task_definition: String = "task_definition", "empty";
        /// v3.
        gpu: i64, "zero_int";
    }

    /// A service of an app's active release.
    Service {
        /// Its name.
        name: String;
        /// How many processes are wanted.
        count: i64;
        /// CPU units, 1024 to a core.
        cpu: i64;
        /// Where it answers.
        domain: String;
        /// Megabytes.
        memory: i64;
        /// Its ports.
        ports: Vec<ServicePort>;
        /// Ports of network load balancers.
        nlb: Vec<ServiceNlb>;
        /// v3.
        gpu: i64, "zero_int";
        /// v3.
        gpu_vendor: String = "gpu-vendor", "empty";
        /// v3: fewest processes, when it scales by itself.
        min: Option<i64>, "none";
        /// v3: most processes.
        max: Option<i64>, "none";
    }

    /// A port of a service.
    ServicePort {
        /// Outside.
        balancer: i64;
        /// Certificate for it.
        certificate: String;
        /// Inside.
        container: i64;
    }

    /// A port of a service on a network load balancer.
    ServiceNlb {
        /// Inside.
        container_port: i64 = "container-port";
        /// Outside.
        port: i64;
        /// tcp, tls.
        protocol: String;
        /// public, internal.
        scheme: String;
        /// Certificate for it.
        certificate: String;
        /// Whether it crosses zones.
        cross_zone: Option<bool> = "cross-zone", "none";
        /// Networks that may connect.
        allow_cidr: Vec<String> = "allow-cidr", "empty_list";
        /// Whether the client's address is kept.
        preserve_client_ip: Option<bool> = "preserve-client-ip", "none";
    }

    /// A machine of the Rack.
    Instance {
        /// Whether it runs agents.
        agent: bool;
        /// Share in use, 0..1.
        cpu: f64;
        /// Its id.
        id: String;
        /// Share in use, 0..1.
        memory: f64;
        /// Inside address.
        private_ip: String = "private-ip";
        /// How many run on it.
        processes: i64;
        /// Outside address.
        public_ip: String = "public-ip";
        /// active and others.
        status: String;
        /// Since when.
        started: Time;
    }

    /// A resource (database, cache) of an app or Rack.
    Resource {
        /// Its name.
        name: String;
        /// Settings.
        parameters: Parameters, "empty_map";
        /// State.
        status: String, "empty";
        /// postgres, redis, ...
        r#type: String = "type";
        /// Where it answers, with its password. A secret.
        url: String;
        /// Apps that it is linked to.
        apps: Vec<App>, "empty_list";
    }

    /// A kind of resource that can be made.
    ResourceType {
        /// postgres, redis, ...
        name: String;
        /// Its settings.
        parameters: Vec<ResourceParameter>;
    }

    /// A setting of a kind of resource.
    ResourceParameter {
        /// When nothing is given.
        default: String;
        /// What it does.
        description: String;
        /// Its name.
        name: String;
    }

    /// A certificate.
    Certificate {
        /// The first name.
        domain: String;
        /// All names.
        domains: Vec<String>;
        /// End.
        expiration: Time;
        /// Its id.
        id: String;
        /// v3: state of its renewal.
        status: String, "empty";
    }

    /// A container registry with its login. A secret.
    Registry {
        /// Host and path.
        server: String;
        /// Login.
        username: String;
        /// Login.
        password: String;
    }

    /// A Rack.
    System {
        /// Machines.
        count: i64;
        /// Domain of its apps.
        domain: String;
        /// Its name.
        name: String;
        /// What its installation gave.
        outputs: Parameters, "empty_map";
        /// Its settings; secret ones masked by our Racks.
        parameters: Parameters, "empty_map";
        /// aws, local, ...
        provider: String;
        /// Where its API answers.
        rack_domain: String = "rack-domain";
        /// Region.
        region: String;
        /// v3: inside router.
        router_internal: String = "router-internal", "empty";
        /// running, updating, ...
        status: String;
        /// Machine type.
        r#type: String = "type";
        /// Compared as text by clients: 14 digits, or 3.x.
        version: String;
    }

    /// Room on a Rack.
    Capacity {
        /// CPU units of all machines.
        cluster_cpu: i64 = "cluster-cpu";
        /// Megabytes of all machines.
        cluster_memory: i64 = "cluster-memory";
        /// CPU units of one machine.
        instance_cpu: i64 = "instance-cpu";
        /// Megabytes of one machine.
        instance_memory: i64 = "instance-memory";
        /// Processes.
        process_count: i64 = "process-count";
        /// CPU units that they asked for.
        process_cpu: i64 = "process-cpu";
        /// Megabytes that they asked for.
        process_memory: i64 = "process-memory";
        /// Most processes of one service.
        process_width: i64 = "process-width";
    }

    /// A measured series.
    Metric {
        /// Its name.
        name: String;
        /// Points.
        values: Vec<MetricValue>;
    }

    /// A point of a series.
    MetricValue {
        /// When.
        time: Time;
        /// Mean.
        avg: f64;
        /// How many samples.
        count: f64;
        /// Smallest.
        min: f64;
        /// Largest.
        max: f64;
        /// Sum.
        sum: f64;
    }

    /// A stored object.
    Object {
        /// `object://app/key`
        url: String = "Url";
    }

    /// A token, just signed. A secret.
    SystemJwt {
        /// The token.
        token: String;
    }

    /// v3: the new key of the instances.
    KeyPair {
        /// Its name.
        name: String;
        /// PEM. A secret.
        private_key: Option<String> = "private-key";
    }

    /// A Rack as the Console lists it.
    RackEntry {
        /// Without the organization.
        name: String;
        /// Whose it is.
        organization: Option<Organization>, "none";
        /// aws, local, ...
        provider: String;
        /// running, unreachable, ...
        status: String;
    }

    /// A Rack as the Console describes it; `state` null marks one that is updated through its own API.
    RackDetail {
        /// Without the organization.
        name: String;
        /// Whose it is.
        organization: Option<Organization>, "none";
        /// aws, local, ...
        provider: String;
        /// running, unreachable, ...
        status: String;
        /// Whether nothing depends on it.
        deletable: bool;
        /// Settings, when the Console knows them.
        parameters: Option<Parameters>;
        /// Base64 of the installer's state.
        state: Option<String>;
        /// Version, when the Console knows it.
        version: String;
    }

    /// An organization.
    Organization {
        /// Its id; empty where only the name travels.
        id: String, "empty";
        /// Its name.
        name: String;
    }

    /// An integration that can run Racks.
    Runtime {
        /// Its id.
        id: String;
        /// For people.
        title: String;
    }

    /// Who is logged in; the answer of a Console's `/auth`.
    Identity {
        /// User id; empty from a Rack.
        id: String, "empty";
        /// Our Console: e-mail or key name.
        email: String, "empty";
    }
}

impl RackEntry {
    /// `org/name`, or the bare name.
    pub fn path(&self) -> String {
        match &self.organization {
            Some(organization) => format!("{}/{}", organization.name, self.name),
            None => self.name.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn go_servers_are_understood_nulls_and_all() {
        let app: App = serde_json::from_value(json!({
            "name": "web", "status": "running", "locked": null, "parameters": null, "budget": {"x": 1}
        }))
        .unwrap();
        assert_eq!((app.name.as_str(), app.locked, app.parameters.len()), ("web", false, 0));
        let service: Service = serde_json::from_str(r#"{"name":"web","ports":null,"nlb":null,"count":2}"#).unwrap();
        assert_eq!((service.count, service.ports.len()), (2, 0));
        let build: Build =
            serde_json::from_str(r#"{"id":"BABCDEFGHIJ","started":"2026-01-02T03:04:05.6Z","ended":"0001-01-01T00:00:00Z"}"#).unwrap();
        assert!(build.ended.is_zero() && !build.started.is_zero());
        let racks: Vec<RackEntry> = serde_json::from_str(r#"[{"name":"web","organization":{"name":"acme"},"status":"running"}]"#).unwrap();
        assert_eq!(racks[0].path(), "acme/web");
    }

    #[test]
    fn our_answers_have_the_names_that_clients_read() {
        let keys = |value: serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(keys(json!(App::default())), "locked name release router status parameters");
        assert_eq!(
            keys(json!(Build::default())),
            "id app description entrypoint git-sha logs manifest process release reason status started ended wildcard-domain"
        );
        assert_eq!(keys(json!(Release::default())), "id app build env manifest description created");
        assert_eq!(keys(json!(Process::default())), "id app command cpu host image instance memory name ports release started status");
        assert_eq!(keys(json!(Service::default())), "name count cpu domain memory ports nlb");
        assert_eq!(keys(json!(System::default())), "count domain name provider rack-domain region status type version");
        assert_eq!(keys(json!(Object::default())), "Url");
        assert_eq!(json!(RackDetail::default())["state"], serde_json::Value::Null);
        assert_eq!(
            keys(json!(Capacity::default())),
            "cluster-cpu cluster-memory instance-cpu instance-memory process-count process-cpu process-memory process-width"
        );
    }

    #[test]
    fn the_print_is_that_of_go() {
        let text = to_go_json(&json!({"name": "a<b>&c", "list": []})).unwrap();
        assert_eq!(text, "{\n  \"name\": \"a\\u003cb\\u003e\\u0026c\",\n  \"list\": []\n}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap()["name"], "a<b>&c");
    }
}
