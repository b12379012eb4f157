//! Who reads a command that is a text: the image's shell as v2 has it, or nobody, as v3 has it.
//!
//! Most images have a shell and no ENTRYPOINT, and there both agree on what is plain. An ENTRYPOINT is written for words, and an
//! image from scratch has nobody to read anything else.

use bollard::query_parameters::{ContainerArchiveInfoOptionsBuilder, InspectContainerOptions};

use super::{Engine, is_missing};
use crate::command::{Split, split};

/// Where programs are looked for, where an image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The words that a process of this image gets instead of its text; `None` where a shell reads it, if the image has one.
pub(crate) async fn words_for(engine: &Engine, image: &str, text: &str) -> Option<Vec<String>> {
    match split(text)? {
        Split { words, is_own: true, .. } => Some(words),
        Split { words, is_plain: true, .. } if has_entrypoint(engine, image).await => Some(words),
        _ => None,
    }
}

/// The words of a text that no shell can read, and what to tell whoever wrote it.
pub(crate) fn words_without(text: &str) -> Result<(Vec<String>, Option<&'static str>), String> {
    let Split { words, is_plain, .. } = split(text).ok_or_else(|| format!("a quote in its command is not closed: {text}"))?;
    let notice =
        "NOTICE: the image has no sh: the words of the command are used as they are, with variables, patterns and operators in them";
    Ok((words, (!is_plain).then_some(notice)))
}

/// Whether a container has a shell, in `/bin` or where its PATH says. One that cannot be looked into is believed to have one.
pub(crate) async fn is_in(engine: &Engine, container: &str) -> bool {
    let seen = engine.docker.inspect_container(container, None::<InspectContainerOptions>).await;
    let env = seen.ok().and_then(|seen| seen.config?.env).unwrap_or_default();
    for shell in places(&env) {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&shell).build();
        if !matches!(engine.docker.get_container_archive_info(container, Some(options)).await, Err(error) if is_missing(&error)) {
            return true;
        }
    }
    false
}

/// Where a shell may be, in a container with this environment.
fn places(env: &[String]) -> Vec<String> {
    let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(PATH);
    let mut places = vec!["/bin/sh".to_owned()];
    for dir in path.split(':').filter(|dir| dir.starts_with('/')) {
        let place = format!("{}/sh", dir.trim_end_matches('/'));
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

async fn has_entrypoint(engine: &Engine, image: &str) -> bool {
    let seen = engine.docker.inspect_image(image).await;
    seen.ok().and_then(|image| image.config?.entrypoint).is_some_and(|words| !words.is_empty())
}

#[cfg(test)]
mod tests {
    use super::places;

    #[test]
    fn a_shell_is_looked_for_in_bin_and_where_the_path_says() {
        let of = |env: &[&str]| places(&env.iter().map(|&variable| variable.to_owned()).collect::<Vec<_>>()).join(" ");
        assert_eq!(of(&["HOME=/", "PATH=/busybox:/bin/:bin::/nix/store/x/bin"]), "/bin/sh /busybox/sh /nix/store/x/bin/sh");
        assert!(of(&["XPATH=/x"]).starts_with("/bin/sh /usr/local/sbin/sh ") && !of(&["XPATH=/x"]).contains("/x/"));
        assert_eq!(of(&["PATH="]), "/bin/sh");
    }
}
