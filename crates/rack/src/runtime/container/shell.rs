//! Who reads a command that is a text: the image's shell as v2 has it, or nobody, as v3 has it.
//!
//! Most images have a shell and no ENTRYPOINT, and there both agree on what is plain. An ENTRYPOINT is written for words, and an
//! image from scratch has nobody to read anything else.

use bollard::query_parameters::ContainerArchiveInfoOptionsBuilder;

use super::{Engine, is_missing};
use crate::command::{Split, split};

/// Where a shell is.
const SHELL: &str = "/bin/sh";

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
        "NOTICE: the image has no /bin/sh: the words of the command are used as they are, with variables, patterns and operators in them";
    Ok((words, (!is_plain).then_some(notice)))
}

/// Whether a container has a shell. One that cannot be looked into is believed to have one.
pub(crate) async fn is_in(engine: &Engine, container: &str) -> bool {
    let options = ContainerArchiveInfoOptionsBuilder::default().path(SHELL).build();
    !matches!(engine.docker.get_container_archive_info(container, Some(options)).await, Err(error) if is_missing(&error))
}

async fn has_entrypoint(engine: &Engine, image: &str) -> bool {
    let seen = engine.docker.inspect_image(image).await;
    seen.ok().and_then(|image| image.config?.entrypoint).is_some_and(|words| !words.is_empty())
}
