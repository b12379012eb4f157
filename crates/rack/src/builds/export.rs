//! A build as a file: what `builds export` writes and `builds import` reads.
//!
//! All kinds are a gzip-compressed tar archive. Those of the originals begin with `build.json`, followed by images: v2 writes them all into one archive
//! of `docker save`, v3 each into an OCI archive named after its service. Ours begins with the same `build.json`, with how the build was asked
//! for in it, followed by the source. What does not begin with `build.json` is a source.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Component, Path};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use tar::{Archive, EntryType};

/// The first entry.
const BUILD: &str = "build.json";
/// The second of ours.
const SOURCE: &str = "source.tgz";
/// Longest `build.json`, and list of images in an archive.
pub(super) const TEXT_CAP: u64 = 4 << 20;
/// Bytes that an export may unpack to. Images are not unpacked here, and the engine has its own disk.
pub(super) const MOST: u64 = 64 << 30;

/// How a build was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct BuildOptions {
    /// Name of the manifest in the source.
    pub(crate) manifest: Option<String>,
    /// `NAME=value`. May hold secrets.
    pub(crate) build_args: Vec<String>,
    pub(crate) development: bool,
}

/// What `build.json` says of a build, as far as it is taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Described {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) app: String,
    #[serde(default)]
    pub(crate) description: String,
    #[serde(default)]
    pub(crate) git_sha: String,
    /// The text of `convox.yml`.
    pub(crate) manifest: String,
    /// Only in ours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) options: Option<BuildOptions>,
}

/// What somebody sends to be imported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The source of an app.
    Source,
    /// An export of ours.
    Ours(Described),
    /// An export of an original: images of these services.
    Images(Described, BTreeSet<String>),
}

type Reader = io::Take<MultiGzDecoder<BufReader<File>>>;

/// The archive, bounded.
pub(super) fn open(archive: &Path) -> io::Result<Archive<Reader>> {
    Ok(Archive::new(MultiGzDecoder::new(BufReader::new(File::open(archive)?)).take(MOST)))
}

/// A text of an archive; `None` for one that is longer than any.
pub(super) fn text(entry: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    entry.take(TEXT_CAP + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= TEXT_CAP))
}

/// The name of an entry at the top of an archive, however it is written.
pub(super) fn top(path: &Path) -> Option<String> {
    let mut parts = path.components().filter(|part| !matches!(part, Component::CurDir | Component::RootDir));
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => name.to_str().map(str::to_owned),
        _ => None,
    }
}

/// Whether an entry of this name holds images.
pub(super) fn is_images(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "tar")
}

/// Whether it is an export of whatever kind, and not a source.
pub(crate) fn is_export(archive: &Path) -> io::Result<bool> {
    Ok(described(&mut open(archive)?.entries()?)?.is_some())
}

/// What the first entry says, if it says that this is an export. A source may have a `build.json` of its own.
fn described<R: Read>(entries: &mut tar::Entries<'_, R>) -> io::Result<Option<Described>> {
    let Some(mut first) = entries.next().transpose()? else { return Ok(None) };
    let is_file = first.header().entry_type() == EntryType::Regular;
    if !is_file || top(&first.path()?).as_deref() != Some(BUILD) {
        return Ok(None);
    }
    let text = text(&mut first)?.unwrap_or_default();
    Ok(serde_json::from_slice::<Described>(&text).ok().filter(|described| !described.id.is_empty()))
}

/// Looks through an archive. The error is for the person who sent it.
pub(crate) fn look(archive: &Path) -> Result<Kind, String> {
    let broken = |error: io::Error| format!("it is not a gzip-compressed tar archive, or it is cut off: {error}");
    let mut archive = open(archive).map_err(broken)?;
    let mut entries = archive.entries().map_err(broken)?;
    let Some(described) = described(&mut entries).map_err(broken)? else { return Ok(Kind::Source) };
    let (mut services, mut has_source) = (BTreeSet::new(), false);
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        match (entry.header().entry_type(), top(&path)) {
            (EntryType::Regular, Some(name)) if name == SOURCE && described.options.is_some() => has_source = true,
            (EntryType::Regular, Some(name)) if is_images(&name) => {
                for service in super::loading::services(&name, &mut entry)? {
                    if !services.insert(service.clone()) {
                        return Err(format!("it has two images of service {service}"));
                    }
                }
            }
            // Directories of those who walked one.
            (EntryType::Directory, _) => {}
            _ => return Err(format!("{} in it is neither a source nor an image", path.display())),
        }
    }
    match (has_source, services.is_empty()) {
        (true, true) => Ok(Kind::Ours(described)),
        (false, false) => Ok(Kind::Images(described, services)),
        (true, false) => Err("it has a source and images, and is of nobody's making".to_owned()),
        (false, true) => Err(format!("the export of build {} holds neither a source nor an image: export it again", described.id)),
    }
}

/// Takes the source out of an export of ours.
pub(crate) fn take_source(archive: &Path, to: &mut File) -> io::Result<()> {
    let mut archive = open(archive)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        if top(&entry.path()?).as_deref() == Some(SOURCE) {
            return io::copy(&mut entry, to).map(drop);
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Writes an export of ours. What is compressed already is not compressed again.
pub(crate) fn write(described: &Described, source: &mut File, to: impl Write) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(to, Compression::none()));
    let text = serde_json::to_vec_pretty(described).map_err(io::Error::other)?;
    let mut append = |name: &str, length: u64, content: &mut dyn Read| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o600);
        header.set_size(length);
        archive.append_data(&mut header, name, content)
    };
    append(BUILD, text.len() as u64, &mut text.as_slice())?;
    let length = source.metadata()?.len();
    append(SOURCE, length, &mut source.take(length))?;
    archive.into_inner()?.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o600);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, name, *content).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    fn kept(bytes: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn what_is_written_is_read_again() {
        let source = kept(b"a source");
        let options = BuildOptions { manifest: Some("other.yml".to_owned()), build_args: vec!["A=b".to_owned()], development: true };
        let described = Described {
            id: "B1".to_owned(),
            description: "by hand".to_owned(),
            manifest: "services: {}".to_owned(),
            options: Some(options),
            ..Described::default()
        };
        let mut bytes = Vec::new();
        write(&described, &mut File::open(source.path()).unwrap(), &mut bytes).unwrap();
        let export = kept(&bytes);
        assert_eq!(look(export.path()), Ok(Kind::Ours(described)));
        assert!(is_export(export.path()).unwrap());
        let mut taken = tempfile::NamedTempFile::new().unwrap();
        take_source(export.path(), taken.as_file_mut()).unwrap();
        assert_eq!(std::fs::read(taken.path()).unwrap(), b"a source");
        // Cut off, it is nothing.
        assert!(look(kept(&bytes[..bytes.len() / 2]).path()).is_err());
    }

    #[test]
    fn exports_and_sources_are_told_apart_and_what_is_neither_is_named() {
        let build = br#"{"id":"B1","app":"shop","manifest":"services: {}","started":"x"}"#;
        let image = |tags: &str| {
            let manifest = format!(r#"[{{"Config":"c.json","RepoTags":[{tags}],"Layers":[]}}]"#);
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_size(manifest.len() as u64);
            archive.append_data(&mut header, "manifest.json", manifest.as_bytes()).unwrap();
            archive.into_inner().unwrap()
        };
        let both = image(r#""1234.dkr.ecr/shop:web.B1","1234.dkr.ecr/shop:worker.B1""#);
        let services = |kind: Result<Kind, String>| match kind {
            Ok(Kind::Images(_, services)) => services.into_iter().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        let v2 = kept(&packed(&[("build.json", build), ("shop.B1.tar", &both)]));
        assert_eq!(services(look(v2.path())), ["web", "worker"]);
        for (entries, told) in [
            (&[("build.json", &build[..])][..], "neither a source nor an image"),
            (&[("build.json", &build[..]), ("notes.txt", b"x")][..], "notes.txt in it"),
            (&[("build.json", &build[..]), ("web.B1.tar", b"no archive")][..], "web.B1.tar"),
            (&[("build.json", &build[..]), ("a.tar", &both[..]), ("b.tar", &both[..])][..], "two images of service web"),
        ] {
            let refused = look(kept(&packed(entries)).path()).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
        // A source with a file of that name, first or later.
        for entries in [&[("build.json", &b"{\"target\":\"x\"}"[..]), ("a.js", b"")][..], &[("a.js", &b""[..]), ("build.json", build)][..]]
        {
            assert_eq!(look(kept(&packed(entries)).path()), Ok(Kind::Source));
        }
        assert!(look(kept(b"no archive").path()).is_err());
    }
}
