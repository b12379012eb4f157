//! Images out of an export of an original Rack, into the engine.
//!
//! An archive of images says itself under which names they are to be kept, and an engine does as it says: one that named another app's image, or the base
//! image of all, would take its place. So every archive is written anew on its way, with names of this build and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tar::{Archive, Builder, Entry, EntryType, Header};
use tokio::sync::mpsc;

use super::context::{self, Pieces};
use super::export::{is_images, open, text, top};

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
    let (mut is_oci, mut found) = (false, None);
    let mut inner = Archive::new(archive);
    for entry in inner.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let at_top = top(&entry.path().map_err(broken)?);
        match (at_top.as_deref(), entry.header().entry_type()) {
            (Some("manifest.json"), EntryType::Regular) => found = Some(saved(&mut entry).map_err(broken)?),
            (Some("index.json"), EntryType::Regular) => is_oci = true,
            // Readers follow a link there to a list that was not looked at.
            (Some("manifest.json" | "index.json" | "oci-layout" | "repositories"), kind) if kind != EntryType::Regular => {
                return Err(format!("{name} in it has a link in the place of its list of images"));
            }
            (_, EntryType::Regular | EntryType::Directory | EntryType::Symlink | EntryType::Link) => {}
            _ => return Err(format!("{name} in it holds what no archive of images does")),
        }
    }
    match found {
        Some(images) => {
            let tags: Vec<String> = images.into_iter().flat_map(|image| image.tags.unwrap_or_default()).collect();
            let services: Option<BTreeSet<String>> = tags.iter().map(|tag| service_of(tag).map(str::to_owned)).collect();
            let services = services.filter(|services| !services.is_empty() && services.len() == tags.len());
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
    let mut archive = open(export)?;
    let mut names = Vec::new();
    for entry in archive.entries()? {
        names.extend(top(&entry?.path()?).filter(|name| is_images(name)));
    }
    Ok(names)
}

/// One archive of images of an export as an engine may get it: under the names that `names` has for services. Ends soon after nobody takes the pieces
/// any more.
pub(super) fn stream(export: PathBuf, name: String, names: BTreeMap<String, String>) -> mpsc::Receiver<io::Result<Bytes>> {
    context::pieces_of(move |out| {
        let mut archive = open(&export)?;
        for entry in archive.entries()? {
            let entry = entry?;
            if top(&entry.path()?).as_deref() == Some(name.as_str()) {
                return renamed(&name, entry, &names, out);
            }
        }
        Err(io::ErrorKind::NotFound.into())
    })
}

fn renamed(name: &str, archive: impl Read, names: &BTreeMap<String, String>, out: &mut Pieces) -> io::Result<()> {
    let own = name.split('.').next().and_then(|service| names.get(service));
    let mut inner = Archive::new(archive);
    let mut outer = Builder::new(out);
    // Which of the two lists an archive with both is read by depends on the engine: it gets one. The first pass has seen that there is one.
    let mut lists: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for entry in inner.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        match top(&path).as_deref() {
            Some("manifest.json") => drop(lists.insert("manifest.json", renamed_list(&mut entry, names)?)),
            Some("index.json") => drop(lists.insert("index.json", whole(&mut entry)?)),
            Some("oci-layout") => drop(lists.insert("oci-layout", whole(&mut entry)?)),
            Some("repositories") => {}
            _ => copy(&mut outer, &path, &mut entry)?,
        }
    }
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

fn copy(outer: &mut Builder<&mut Pieces>, path: &Path, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let kind = entry.header().entry_type();
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    match kind {
        EntryType::Regular => {
            header.set_size(entry.size());
            outer.append_data(&mut header, path, entry)
        }
        EntryType::Directory => {
            header.set_size(0);
            outer.append_data(&mut header, path, io::empty())
        }
        _ => {
            header.set_size(0);
            let target = entry.link_name()?.ok_or_else(|| io::Error::other("a link to nothing"))?.into_owned();
            outer.append_link(&mut header, path, target)
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

/// The index of an OCI layout with one image, whose name are two annotations: what Podman reads, and what Docker does.
fn renamed_index(text: &[u8], name: Option<&String>) -> io::Result<Vec<u8>> {
    let mut index: Value = serde_json::from_slice(text).map_err(io::Error::other)?;
    let images =
        index.get_mut("manifests").and_then(Value::as_array_mut).ok_or_else(|| io::Error::other("its index.json names no images"))?;
    for image in images {
        let names = name.map(|name| serde_json::json!({"org.opencontainers.image.ref.name": name, "io.containerd.image.name": name}));
        if let Some(image) = image.as_object_mut() {
            image.remove("annotations");
            image.extend(names.map(|names| ("annotations".to_owned(), names)));
        }
    }
    serde_json::to_vec(&index).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

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
        let index = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:1","annotations":{"io.containerd.image.name":"docker.io/library/debian:stable-slim"}}]}"#;
        let entries = [("oci-layout", "{}"), ("./index.json", index), ("blobs/sha256/1", "x")];
        let sent = sent("web.B1.tar", &entries, &[("web", "localhost/w:B2")]).await;
        let index: Value = serde_json::from_str(&sent["index.json"]).unwrap();
        let names =
            serde_json::json!({"org.opencontainers.image.ref.name": "localhost/w:B2", "io.containerd.image.name": "localhost/w:B2"});
        assert_eq!((&index["manifests"][0]["annotations"], sent.len()), (&names, 3));
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
        assert!(services("shop.B1.tar", &mut bytes.as_slice()).unwrap_err().contains("a link in the place of its list"));
        let mut archive = Builder::new(Vec::new());
        append(&mut archive, "manifest.json", br#"[{"Config":"c","RepoTags":null,"Layers":[]}]"#);
        let bytes = archive.into_inner().unwrap();
        assert!(services("shop.B1.tar", &mut bytes.as_slice()).unwrap_err().contains("which image is of which service"));
    }
}
