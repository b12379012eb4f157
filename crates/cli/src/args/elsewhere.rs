//! Commands of the originals that are not here, each with the reason, so that nobody looks for them in vain.

/// The reason, if `words` begin with such a command.
pub(crate) fn reason(words: &[String]) -> Option<&'static str> {
    let names: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.starts_with('-')).collect();
    NOT_HERE.iter().find(|(command, _)| command.split(' ').enumerate().all(|(at, word)| names.get(at) == Some(&word))).map(|(_, why)| *why)
}

const NOT_HERE: &[(&str, &str)] = &[
    ("update", "convox does not replace its own program: install the new version the way you installed this one"),
    ("encrypt", "encrypt and decrypt are for the build agents of Racks on AWS; use a tool for files, such as age"),
    ("decrypt", "encrypt and decrypt are for the build agents of Racks on AWS; use a tool for files, such as age"),
    ("rack sync whitelist", "security groups exist on AWS only; use the original v2 convox for this Rack"),
    ("rack karpenter", "Karpenter exists on AWS only; use the original v3 convox for this Rack"),
    ("rack kubeconfig", "it would write your key into a file in clear text; use the original v3 convox for a Rack on Kubernetes"),
    ("rack resources", "resources belong to apps: name them in convox.yml, and see `convox resources`"),
    ("letsencrypt", "these settings are for AWS Route 53; use the original v3 convox for this Rack"),
    ("cloud", "Convox Cloud machines are rented from the makers of the original; use their convox for them"),
    ("runtimes", "cloud accounts are attached in the original Console; `convox rack runtimes` lists those of a Rack"),
    ("workflows", "workflows live in the original Console; let your CI run `convox deploy`"),
    ("budget", "budgets are kept by Racks on AWS only; use the original v3 convox for this Rack"),
    ("cost", "costs are counted by Racks on AWS only; use the original v3 convox for this Rack"),
    ("deploy-debug", "`convox logs -a APP --since 10m --no-follow` and `convox builds logs BUILD` say why a deploy failed"),
    ("services triggers", "autoscaling by triggers exists on Kubernetes only; use the original v3 convox for this Rack"),
    ("services update", "`convox scale SERVICE` changes count, cpu and memory"),
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
