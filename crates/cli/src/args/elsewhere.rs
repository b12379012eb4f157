//! Commands of the originals that are not here, each with the reason, so that nobody looks for them in vain.

/// The reason, if `words` begin with such a command.
pub(crate) fn reason(words: &[String]) -> Option<&'static str> {
    let names: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    NOT_HERE.iter().find(|(command, _)| command.split(' ').enumerate().all(|(at, word)| names.get(at) == Some(&word))).map(|(_, why)| *why)
}

const NOT_HERE: &[(&str, &str)] = &[
    ("update", "convox does not replace its own program: install the new version the way you installed this one"),
    (
        "encrypt",
        "v2 seals texts on this machine with a key on the command line, where others can read it; use a tool for files, such as age",
    ),
    (
        "decrypt",
        "v2 opens texts on this machine with a key on the command line, where others can read it; use a tool for files, such as age",
    ),
    (
        "rack sync whitelist",
        "security groups exist on AWS only: the original v2 convox does it for a Rack there, on every other there is nothing to sync",
    ),
    (
        "rack karpenter",
        "Karpenter exists on AWS only: the original v3 convox does it for a Rack there, on every other there is nothing to clean up",
    ),
    (
        "rack kubeconfig",
        "it would write your key into a file in clear text; the original v3 convox does it for a Rack on Kubernetes, no other has one",
    ),
    ("rack resources", "resources belong to apps: name them in convox.yml, and see `convox resources`"),
    (
        "letsencrypt",
        "these settings are for AWS Route 53: the original v3 convox does it for a Rack there; a convox-rack gets certificates by --acme-directory",
    ),
    ("cloud", "Convox Cloud machines are rented from the makers of the original; use their convox for them"),
    ("runtimes", "cloud accounts are attached in the original Console; `convox rack runtimes` lists those of a Rack"),
    ("workflows", "workflows live in the original Console; let your CI run `convox deploy`"),
    (
        "budget",
        "budgets are kept by v3 Racks on Kubernetes: the original v3 convox sets them there; a convox-rack has no prices, and none to keep",
    ),
    (
        "cost",
        "costs are counted by v3 Racks on Kubernetes: the original v3 convox shows them; a convox-rack has no prices: see `convox scale` for what apps ask for",
    ),
    ("deploy-debug", "`convox logs -a APP --since 10m --no-follow` and `convox builds logs BUILD` say why a deploy failed"),
    (
        "services triggers",
        "a Rack on Kubernetes scales by triggers: the original v3 convox sets them there; elsewhere set a count: `convox scale SERVICE --count N`",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_of_the_originals_is_told_from_an_unknown_one() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(reason(&words("update")).is_some());
        assert!(reason(&words("-r x letsencrypt dns route53 list")).is_none(), "a value is no name; nothing is guessed");
        assert!(reason(&words("letsencrypt dns route53 list -r x")).is_some());
        assert!(reason(&words("rack sync")).is_none());
        assert!(reason(&words("nosuch")).is_none());
    }
}
