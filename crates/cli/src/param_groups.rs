//! The groups of v2 Rack parameters that `rack params --group` knows. A parameter may be in two.

use crate::error::Failure;

/// Shown as asterisks on a terminal.
pub(crate) const SECRET: &[&str] = &["Password", "HttpProxy"];

/// Some parameters that belong together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    about: &'static str,
    pub(crate) members: &'static [&'static str],
}

const GROUPS: &[Group] = &[
    Group {
        name: "api",
        about: "the rack's own API",
        members: &[
            "ApiCount",
            "ApiCpu",
            "ApiMonitorMemory",
            "ApiRouter",
            "ApiWebMemory",
            "DisableALBPort80",
            "InternalRouterSuffix",
            "LoadBalancerIdleTimeout",
            "PrivateApi",
            "RouterMitigationMode",
        ],
    },
    Group {
        name: "build",
        about: "where and how builds run",
        members: &[
            "BuildCpu",
            "BuildImage",
            "BuildInstance",
            "BuildInstancePolicy",
            "BuildMemory",
            "BuildMethod",
            "BuildVolumeSize",
            "FargateBuildCpu",
            "FargateBuildMemory",
            "PrivateBuild",
            "PruneOlderImagesCronRunFreq",
            "PruneOlderImagesInHour",
        ],
    },
    Group {
        name: "instances",
        about: "the machines that apps run on",
        members: &[
            "Ami",
            "CpuCredits",
            "DefaultAmi",
            "DefaultAmiArm",
            "InstanceBootCommand",
            "InstancePolicy",
            "InstanceRunCommand",
            "InstanceType",
            "SwapSize",
            "Tenancy",
            "VolumeSize",
        ],
    },
    Group {
        name: "logging",
        about: "where logs go and how long they stay",
        members: &["LogBucket", "LogDriver", "LogRetention", "SyslogDestination", "SyslogFormat"],
    },
    Group {
        name: "meta",
        about: "the rack itself",
        members: &[
            "ClientId",
            "Development",
            "EcsContainerStopTimeout",
            "EcsPollInterval",
            "ImagePullBehavior",
            "MaintainTimerState",
            "Telemetry",
            "Version",
        ],
    },
    Group {
        name: "network",
        about: "networks and subnets",
        members: &[
            "AvailabilityZones",
            "ExistingVpc",
            "HttpProxy",
            "Internal",
            "InternalOnly",
            "InternetGateway",
            "MaxAvailabilityZones",
            "PlaceLambdaInVpc",
            "Private",
            "Subnet0CIDR",
            "Subnet1CIDR",
            "Subnet2CIDR",
            "SubnetPrivate0CIDR",
            "SubnetPrivate1CIDR",
            "SubnetPrivate2CIDR",
            "VPCCIDR",
        ],
    },
    Group {
        name: "nlb",
        about: "network load balancers",
        members: &[
            "NLB",
            "NLBAllowCIDR",
            "NLBCrossZone",
            "NLBDeletionProtection",
            "NLBInternal",
            "NLBInternalAllowCIDR",
            "NLBInternalCrossZone",
            "NLBInternalDeletionProtection",
            "NLBInternalPreserveClientIP",
            "NLBPreserveClientIP",
        ],
    },
    Group {
        name: "scaling",
        about: "how many machines, and of which price",
        members: &[
            "Autoscale",
            "AutoscaleExtra",
            "HighAvailability",
            "InstanceCount",
            "InstanceUpdateBatchSize",
            "NoHAAutoscaleExtra",
            "NoHaInstanceCount",
            "OnDemandMinCount",
            "ScheduleRackScaleDown",
            "ScheduleRackScaleUp",
            "SpotFleetAllocationStrategy",
            "SpotFleetAllowedInstanceTypes",
            "SpotFleetExcludedInstanceTypes",
            "SpotFleetMaxPrice",
            "SpotFleetMinMemoryMiB",
            "SpotFleetMinOnDemandCount",
            "SpotFleetMinVcpuCount",
            "SpotFleetTargetType",
            "SpotInstanceBid",
        ],
    },
    Group {
        name: "security",
        about: "encryption, policies and allow lists",
        members: &[
            "BuildInstancePolicy",
            "BuildInstanceSecurityGroup",
            "EnableContainerReadonlyRootFilesystem",
            "EnableSharedEFSVolumeEncryption",
            "EncryptEbs",
            "Encryption",
            "HttpProxy",
            "IMDSHttpPutResponseHopLimit",
            "IMDSHttpTokens",
            "InstancePolicy",
            "InstanceSecurityGroup",
            "InstancesIpToIncludInWhiteListing",
            "Key",
            "Password",
            "PrivateApiSecurityGroup",
            "RouterInternalSecurityGroup",
            "RouterSecurityGroup",
            "SslPolicy",
            "WhiteList",
        ],
    },
    Group {
        name: "storage",
        about: "disks, tables and buckets",
        members: &[
            "DynamoDbTableDeletionProtectionEnabled",
            "DynamoDbTablePointInTimeRecoveryEnabled",
            "EnableS3Versioning",
            "EnableSharedEFSVolumeEncryption",
            "EncryptEbs",
        ],
    },
];

/// A group by its name or an unambiguous beginning of it.
pub(crate) fn find(input: &str) -> Result<Group, Failure> {
    let wanted = input.trim().to_lowercase();
    if let Some(group) = GROUPS.iter().find(|group| group.name == wanted) {
        return Ok(*group);
    }
    let close: Vec<&Group> = GROUPS.iter().filter(|group| !wanted.is_empty() && group.name.starts_with(&wanted)).collect();
    let list: Vec<String> = GROUPS.iter().map(|group| format!("\n  {:9}  {}", group.name, group.about)).collect();
    let list = list.concat();
    match close.as_slice() {
        [only] => Ok(**only),
        [] => Err(Failure::new(format!("group '{wanted}' not found{list}"))),
        several => {
            let names: Vec<&str> = several.iter().map(|group| group.name).collect();
            let shortest: Vec<String> = several.iter().map(|group| format!("'{}'", shortest(group.name))).collect();
            Err(Failure::new(format!(
                "group '{wanted}' matches multiple groups: {} (use {}){list}",
                names.join(", "),
                shortest.join(" or ")
            )))
        }
    }
}

/// The shortest beginning that names this group alone.
fn shortest(name: &str) -> &str {
    (1..=name.len())
        .filter_map(|end| name.get(..end))
        .find(|start| GROUPS.iter().filter(|group| group.name.starts_with(start)).count() == 1)
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_name_or_beginning() {
        assert_eq!(find("nlb").unwrap().name, "nlb");
        assert_eq!(find(" NET ").unwrap().name, "network");
        assert!(find("x").unwrap_err().to_string().starts_with("group 'x' not found\n  api "));
        let several = find("n").unwrap_err().to_string();
        assert!(several.starts_with("group 'n' matches multiple groups: network, nlb (use 'ne' or 'nl')\n"), "{several}");
        assert!(find("").is_err());
    }
}
