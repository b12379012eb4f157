//! Parameters of the originals that cannot mean anything on one machine, and what to do instead.

use super::Scope;

/// Parameters with one reason.
pub(super) struct Other {
    pub(super) why: &'static str,
    /// Their names, between spaces; those that end with `*` are beginnings, and those that begin with it ends.
    names: &'static str,
    /// Values that are true here anyway: an app brings them along from elsewhere without having chosen them.
    so_anyway: &'static [&'static str],
}

impl Other {
    pub(super) fn is_so_anyway(&self, value: &str) -> bool {
        self.so_anyway.contains(&value)
    }

    fn has(&self, name: &str) -> bool {
        self.names.split_ascii_whitespace().any(|known| match (known.strip_suffix('*'), known.strip_prefix('*')) {
            (Some(start), _) => name.starts_with(start),
            (_, Some(end)) => name.ends_with(end),
            _ => known == name,
        })
    }
}

/// The first that names it; the more particular ones stand first.
pub(super) fn find(scope: Scope, name: &str) -> Option<&'static Other> {
    let own = match scope {
        Scope::Rack => RACK,
        Scope::App => APP,
    };
    own.iter().find(|other| other.has(name))
}

const RACK: &[Other] = &[
    rack(
        "this rack is one machine and its size is that machine's",
        "ApiCount ApiCpu ApiMonitorMemory ApiWebMemory Autoscale* HighAvailability high_availability InstanceCount \
         InstanceUpdateBatchSize NoHAAutoscaleExtra NoHaInstanceCount OnDemandMinCount ScheduleRackScale* schedule_rack_scale* \
         SpotFleet* SpotInstanceBid BuildCpu FargateBuild*",
    ),
    rack(
        "this rack makes no machines; it is the machine that it runs on",
        "Ami DefaultAmi* BuildInstance* BuildMethod BuildVolumeSize CpuCredits EncryptEbs IMDSHttp* InstanceBootCommand \
         InstancePolicy InstanceRunCommand InstanceSecurityGroup InstanceType Key SwapSize Tenancy VolumeSize os key_pair_name \
         user_data*",
    ),
    rack(
        "its networks are those of its machine; start it with other --listen and --router-listen addresses, or set WhiteList",
        "AvailabilityZones ExistingVpc Internal* InternetGateway MaxAvailabilityZones NLB* PlaceLambdaInVpc Private* PrivateApi* \
         RouterSecurityGroup RouterInternalSecurityGroup Subnet* VPCCIDR InstancesIpToIncludInWhiteListing DisableALBPort80 \
         ApiRouter LoadBalancerIdleTimeout RouterMitigationMode",
    ),
    rack("give the networks in WhiteList", "whitelist"),
    rack("roll it: `convox rack password roll`", "Password"),
    rack("it installs no versions by itself: install the new one and start it on the same data", "Version release image"),
    rack(
        "its logs are kept here; `convox rack logs` and `convox logs` read them, and follow them to wherever they are to go",
        "LogBucket LogDriver Syslog* syslog fluentd*",
    ),
    rack("the router speaks TLS 1.2 and 1.3 with the ciphers that rustls holds to be safe", "SslPolicy ssl_*"),
    rack("log in to registries with `convox registries add`", "docker_hub*"),
    rack("builds that nobody can promote go by themselves: start it with --keep-builds N", "PruneOlderImages* releases_to_retain*"),
    rack("give the proxy to the container engine, and to apps in their environment", "HttpProxy"),
    rack("images are got when they are built or imported, and then kept", "ImagePullBehavior"),
    rack("it tells nobody anything; `--metrics-listen` is for your own monitoring", "Telemetry telemetry ClientId"),
    rack("timers are set in convox.yml and hold until another release", "MaintainTimerState"),
    rack("say it for each service in convox.yml: `termination.grace`", "EcsContainerStopTimeout"),
    rack("containers here can write to their own file system; keep what must last in `volumes`", "EnableContainerReadonlyRootFilesystem"),
    rack(
        "it belongs to services of AWS, which this rack does not use",
        "Development DynamoDb* EcsPollInterval EnableS3Versioning EnableSharedEFSVolumeEncryption Encryption BuildImage",
    ),
    rack(
        "it belongs to racks on Kubernetes",
        "access_log_retention* additional_* api_feature_gates availability_zones aws_* build_* buildkit_* cert_duration cidr \
         contour_* convox_* coredns_* cost_tracking* custom_provided_bucket dcgm_* deploy_extra_nlb disable_* domain ebs_* ecr_* \
         efs_* eks_* enable_private_access envoy_* gpu_* grafana_* idle_timeout imds_* internal_router internet_gateway_id \
         k8s_version karpenter_* keda_* kube_* kubelet_* max_on_demand_count min_on_demand_count name nginx_* nlb_* node_* \
         nvidia_* pdb_* pod_identity* private* prometheus_* proxy_protocol public_subnets_ids rack_name region registry_disk \
         release_watcher* router_type settings tags terraform_* vpa_* vpc_* webhook_signing_key",
    ),
];

const APP: &[Other] = &[
    app("set the size of a service with `convox scale`", "*Formation", &[]),
    app("it would give the app the rack's password; give it a token of `convox rack access` in its environment", "RackUrl", &["No"]),
    app("every resource has a random password of its own", "ResourcePassword ParamPassword", &[""]),
    app("there is no Fargate here", "FargateServices FargateTimers", &["No"]),
    app("a promotion that fails is rolled back in any case", "CircuitBreaker", &["No", "Yes"]),
    app("healthy is an answer from 200 to 399", "LoadBalancerSuccessCodes", &["200-399"]),
    app("the router does not speak gRPC to processes", "LoadBalancerGrpcSuccessCodes", &["12"]),
    app("requests go to healthy processes in turn", "LoadBalancerAlgorithm", &["round_robin"]),
    app("a new process gets its whole share when it is healthy", "SlowStartDuration", &["0"]),
    app("its logs are kept by the rack; `convox logs` reads them", "LogBucket LogDriver SyslogDestination", &["", "CloudWatch"]),
    app("its logs are kept by the rack; `convox logs` reads them", "SyslogFormat", &["", "rfc5424"]),
    app("a size that was set with `convox scale` holds until another is set", "IgnoreManualScaleCount", &["No"]),
    app("containers here can write to their own file system", "EnableContainerReadonlyRootFilesystem", &["No"]),
    app("services reach each other by `links`, and `internal: true` in convox.yml keeps one from outside", "InternalDomains", &["Yes"]),
    app("say it for each service in convox.yml: `internal: true`", "Private", &["No"]),
    app("there are no security groups here", "Isolate", &["No"]),
    app("there are no accounts of AWS here", "IamPolicy PlaceLambdaInVpc TaskTags", &["", "No"]),
    app("a resource is of the version that this machine or its image has", "AutoMinorVersionUpgrade", &["true"]),
    app("builds share the machine with each other; `BuildMem` bounds their memory", "BuildCpu", &[""]),
    app("builds are made on this machine and for it", "BuildArch BuildLabels", &[""]),
    app("an app is on the rack that it is on", "Rack Settings Registry", &[]),
];

const fn rack(why: &'static str, names: &'static str) -> Other {
    Other { why, names, so_anyway: &[] }
}

const fn app(why: &'static str, names: &'static str, so_anyway: &'static [&'static str]) -> Other {
    Other { why, names, so_anyway }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_and_beginnings_are_told_apart() {
        assert!(find(Scope::App, "WorkerFormation").is_some() && find(Scope::App, "FormationX").is_none());
        assert!(find(Scope::Rack, "SpotFleetMaxPrice").is_some() && find(Scope::Rack, "MySpotFleet").is_none());
        assert!(find(Scope::Rack, "Colour").is_none() && find(Scope::Rack, "").is_none());
    }
}
