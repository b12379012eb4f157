//! Images out of an export of an original Rack, into the engine.
//!
//! An archive of images says itself under which names they are to be kept, and an engine does as it says: one that named another app's image, or the base
//! image of all, would take its place. So every archive is written anew on its way, with names of this build and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tar::{Builder, Entry, EntryType, Header};
use tokio::sync::mpsc;

use super::context::{self, Pieces};
use super::export::{each, is_images, open, text, top};
use super::places::Places;

/// The list of images in an archive of `docker save`, one entry each.
#[derive(Deserialize, Serialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags")]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// Of `REPOSITORY:web.BABCDEFGHI`: `web`.
fn service_of(tag: &str) -> Option<&str> {
    tag.rsplit_once(':')?.1.split('.').next().filter(|service| !service.is_empty())
}

/// The services whose images an archive holds; `name` is its own. The error is for the person who sent it.
pub(super) fn services(name: &str, archive: &mut impl Read) -> Result<BTreeSet<String>, String> {
    let broken = |error: io::Error| format!("{name} in it is no archive of images: {error}");
    let (mut is_oci, mut found, mut places) = (false, None, Places::default());
    let refused = each(archive, |entry| {
        let kind = entry.header().entry_type();
        let place = places.of(&entry.path()?, kind)?;
        match (top(&place).as_deref(), kind) {
            (Some("manifest.json"), EntryType::Regular) => found = Some(saved(entry)?),
            (Some("index.json"), EntryType::Regular) => is_oci = true,
            (Some("manifest.json" | "index.json" | "oci-layout" | "repositories"), kind) if kind != EntryType::Regular => {
                return Ok(ControlFlow::Break(format!("{name} in it has something else in the place of its list of images")));
            }
            (_, EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link) => {}
            _ => return Ok(ControlFlow::Break(format!("{name} in it holds what no archive of images does"))),
        }
        Ok(ControlFlow::Continue(()))
    });
    if let Some(why) = refused.map_err(broken)? {
        return Err(why);
    }
    match found {
        Some(images) => {
            // One without a name would stay in the engine for ever.
            let is_named = images.iter().all(|image| image.tags.as_ref().is_some_and(|tags| !tags.is_empty()));
            let tags: Vec<String> = images.into_iter().flat_map(|image| image.tags.unwrap_or_default()).collect();
            let services: Option<BTreeSet<String>> = tags.iter().map(|tag| service_of(tag).map(str::to_owned)).collect();
            let services = services.filter(|services| is_named && !services.is_empty() && services.len() == tags.len());
            services.ok_or_else(|| format!("{name} in it does not say which image is of which service"))
        }
        None if is_oci => Ok(name.split('.').next().map(str::to_owned).into_iter().collect()),
        None => Err(format!("{name} in it is no archive of images: it has neither manifest.json nor index.json")),
    }
}

fn saved(entry: &mut impl Read) -> io::Result<Vec<Saved>> {
    serde_json::from_slice(&whole(entry)?).map_err(io::Error::other)
}

fn whole(entry: &mut impl Read) -> io::Result<Vec<u8>> {
    text(entry)?.ok_or_else(|| io::Error::other("its list of images is too long"))
}

/// Names of the archives of images in an export, which was [looked through](super::export::look).
pub(super) fn archives(export: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    each(open(export)?, |entry| {
        names.extend(top(&entry.path()?).filter(|name| is_images(name)));
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    Ok(names)
}

/// One archive of images of an export as an engine may get it: under the names that `names` has for services. Ends soon after nobody takes the pieces
/// any more.
pub(super) fn stream(export: PathBuf, name: String, names: BTreeMap<String, String>) -> mpsc::Receiver<io::Result<Bytes>> {
    context::pieces_of(move |out| {
        let found = each(open(&export)?, |entry| {
            if top(&entry.path()?).as_deref() != Some(name.as_str()) {
                return Ok(ControlFlow::Continue(()));
            }
            renamed(&name, entry, &names, out).map(ControlFlow::Break)
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    })
}

fn renamed(name: &str, archive: impl Read, names: &BTreeMap<String, String>, out: &mut Pieces) -> io::Result<()> {
    let own = name.split('.').next().and_then(|service| names.get(service));
    let mut places = Places::default();
    let mut outer = Builder::new(out);
    // Which of the two lists an archive with both is read by depends on the engine: it gets one. The first pass has seen that there is one.
    let mut lists: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    each(archive, |entry| {
        let place = places.of(&entry.path()?, entry.header().entry_type())?;
        match top(&place).as_deref() {
            Some("manifest.json") => drop(lists.insert("manifest.json", renamed_list(entry, names)?)),
            Some("index.json") => drop(lists.insert("index.json", whole(entry)?)),
            Some("oci-layout") => drop(lists.insert("oci-layout", whole(entry)?)),
            Some("repositories") => {}
            _ if place.as_os_str().is_empty() => {}
            _ => copy(&mut outer, &place, entry)?,
        }
        Ok(ControlFlow::<()>::Continue(()))
    })?;
    if lists.contains_key("manifest.json") {
        lists.retain(|name, _| *name == "manifest.json");
    } else if let Some(index) = lists.get_mut("index.json") {
        *index = renamed_index(index, own)?;
    }
    for (name, text) in lists {
        let mut header = Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        outer.append_data(&mut header, name, text.as_slice())?;
    }
    outer.into_inner()?.flush()
}

fn copy(outer: &mut Builder<&mut Pieces>, place: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    match kind {
        EntryType::Regular => {
            header.set_size(entry.size());
            outer.append_data(&mut header, place, entry)
        }
        EntryType::Directory => {
            header.set_size(0);
            outer.append_data(&mut header, place, io::empty())
        }
        _ => {
            header.set_size(0);
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?.into_owned();
            outer.append_link(&mut header, place, target)
        }
    }
}

fn renamed_list(entry: &mut impl Read, names: &BTreeMap<String, String>) -> io::Result<Vec<u8>> {
    let mut images = saved(entry)?;
    for image in &mut images {
        let tags = image.tags.take().unwrap_or_default();
        image.tags = Some(tags.iter().filter_map(|tag| names.get(service_of(tag)?).cloned()).collect());
    }
    serde_json::to_vec(&images).map_err(io::Error::other)
}

/// The index of an OCI layout with one image, whose name are two annotations: what Podman reads, and what Docker does. Only what is known goes along:
/// engines take `Annotations` for `annotations`, too.
fn renamed_index(text: &[u8], name: Option<&String>) -> io::Result<Vec<u8>> {
    let mut index: Map<String, Value> = serde_json::from_slice(text).map_err(io::Error::other)?;
    index.retain(|key, _| ["schemaVersion", "mediaType", "manifests"].contains(&key.as_str()));
    let images =
        index.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(|| io::Error::other("its index.json names no images"))?;
    for image in images {
        let names = name.map(|name| serde_json::json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}));
        let image = image.as_object_mut().ok_or_else(|| io::Error::other("its index.json has something else than an image"))?;
        image.retain(|key, _| ["mediaType", "digest", "size", "platform"].contains(&key.as_str()));
        image.extend(names.map(|names| ("annotations".to_owned(), names)));
    }
    serde_json::to_vec(&index).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::Archive;

    use super::*;

    /// A list as it should be, so that only what is beside it can be wrong.
    const LIST: &str = r#"[{"Config":"c.json","RepoTags":["ecr/shop:web.B1"],"Layers":["l/layer.tar"]}]"#;
    /// Of an OCI layout, with another's name.
    const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:1","annotations":{"org.opencontainers.image.ref.name":"docker.io/library/debian:stable-slim"}}]}"#;

    fn append(archive: &mut Builder<impl io::Write>, name: &str, content: &[u8]) {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
    }

    /// What an engine gets of an archive with these entries: name and text of each.
    async fn sent(name: &str, entries: &[(&str, &str)], names: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut inner = Builder::new(Vec::new());
        for (name, content) in entries {
            append(&mut inner, name, content.as_bytes());
        }
        let mut outer = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        append(&mut outer, name, &inner.into_inner().unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), outer.into_inner().unwrap().finish().unwrap()).unwrap();
        assert_eq!(archives(file.path()).unwrap(), [name]);
        let names = names.iter().map(|(service, name)| ((*service).to_owned(), (*name).to_owned())).collect();
        let mut pieces = stream(file.path().to_owned(), name.to_owned(), names);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut archive = Archive::new(bytes.as_slice());
        let texts = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        });
        texts.collect()
    }

    #[tokio::test]
    async fn no_image_keeps_a_name_that_its_archive_gives_it() {
        let list =
            r#"[{"Config":"c.json","RepoTags":["ecr/shop:web.B1","docker.io/library/debian:stable-slim"],"Layers":["l/layer.tar"]}]"#;
        let entries =
            [("c.json", "config"), ("l/layer.tar", "layer"), ("manifest.json", list), ("repositories", "{}"), ("index.json", "{}")];
        let sent = sent("shop.B1.tar", &entries, &[("web", "localhost/convox-main-1/shop/web:B2")]).await;
        let list = r#"[{"Config":"c.json","RepoTags":["localhost/convox-main-1/shop/web:B2"],"Layers":["l/layer.tar"]}]"#;
        let wanted = [("c.json", "config"), ("l/layer.tar", "layer"), ("manifest.json", list)];
        assert_eq!(sent, wanted.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    #[tokio::test]
    async fn an_oci_archive_gets_the_name_of_its_service() {
        let theirs =
            r#"[{"digest":"sha256:1","annotations":{"io.containerd.image.name":"d:1"},"Annotations":{"io.containerd.image.name":"d:1"}}]"#;
        let index = format!(r#"{{"schemaVersion":2,"manifests":{theirs},"Manifests":{theirs}}}"#);
        let entries = [("oci-layout", "{}"), ("./index.json", index.as_str()), ("blobs/sha256/1", "x")];
        let sent = sent("web.B1.tar", &entries, &[("web", "localhost/w:B2")]).await;
        let index: Value = serde_json::from_str(&sent["index.json"]).unwrap();
        let names =
            serde_json::json!({"org.opencontainers.image.ref.name": "localhost/w:B2", "io.containerd.image.name": "localhost/w:B2"});
        let wanted = serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": "sha256:1", "annotations": names}]});
        assert_eq!((index, sent.len()), (wanted, 3));
    }

    #[test]
    fn an_archive_that_hides_its_list_is_refused() {
        let mut archive = Builder::new(Vec::new());
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "manifest.json", "other.json").unwrap();
        append(&mut archive, "other.json", b"[]");
        let bytes = archive.into_inner().unwrap();
        assert!(services("shop.B1.tar", &mut bytes.as_slice()).unwrap_err().contains("a link at the top, where its list of images is"));
        let mut archive = Builder::new(Vec::new());
        append(&mut archive, "manifest.json", br#"[{"Config":"c","RepoTags":null,"Layers":[]}]"#);
        let bytes = archive.into_inner().unwrap();
        assert!(services("shop.B1.tar", &mut bytes.as_slice()).unwrap_err().contains("which image is of which service"));
    }

    fn link(archive: &mut Builder<Vec<u8>>, name: &str, target: &str) {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, name, target).unwrap();
    }

    /// What is said of an archive with a list as it should be and what `more` adds.
    fn told(more: impl Fn(&mut Builder<Vec<u8>>)) -> Result<BTreeSet<String>, String> {
        let mut archive = Builder::new(Vec::new());
        append(&mut archive, "manifest.json", LIST.as_bytes());
        more(&mut archive);
        services("shop.B1.tar", &mut archive.into_inner().unwrap().as_slice())
    }

    #[test]
    fn no_list_of_images_is_hidden_behind_another_name() {
        assert_eq!(told(|_| {}), Ok(BTreeSet::from(["web".to_owned()])));
        // Older layers are links to newer ones in what `docker save` writes.
        assert_eq!(told(|archive| link(archive, "l/layer.tar", "../k/layer.tar")), Ok(BTreeSet::from(["web".to_owned()])));
        let dots = told(|archive| {
            let long = "a".repeat(120);
            append(archive, &format!("{long}/../oci-layout"), b"{}");
            append(archive, &format!("{long}/../index.json"), INDEX.as_bytes());
        });
        assert!(dots.as_ref().is_err_and(|why| why.contains("leads elsewhere than it says")), "{dots:?}");
        let top = told(|archive| {
            link(archive, "d", ".");
            append(archive, "d/index.json", INDEX.as_bytes());
        });
        assert!(top.as_ref().is_err_and(|why| why.contains("a link at the top")), "{top:?}");
        let below = told(|archive| {
            link(archive, "d/e", "..");
            append(archive, "d/e/index.json", INDEX.as_bytes());
        });
        assert!(below.as_ref().is_err_and(|why| why.contains("lies behind a link")), "{below:?}");
    }

    #[test]
    fn every_image_of_an_archive_has_a_name() {
        let list = LIST.replace("}]", r#"},{"Config":"d.json","RepoTags":null,"Layers":[]}]"#);
        let unnamed = told(|archive| append(archive, "manifest.json", list.as_bytes()));
        assert!(unnamed.as_ref().is_err_and(|why| why.contains("which image is of which service")), "{unnamed:?}");
    }
}
