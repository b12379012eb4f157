//! A build as a file: what `builds export` writes and `builds import` reads.
//!
//! All kinds are a gzip-compressed tar archive. Those of the originals begin with `build.json`, followed by images: v2 writes them all into one archive
//! of `docker save`, v3 each into an OCI archive named after its service. Ours begins with the same `build.json`, with how the build was asked
//! for in it, followed by the source. What does not begin with `build.json` is a source.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::ops::ControlFlow;
use std::path::{Component, Path};
use std::rc::Rc;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use tar::{Archive, Entry, EntryType};

/// The first entry.
const BUILD: &str = "build.json";
/// The second of ours.
const SOURCE: &str = "source.tgz";
/// Longest `build.json`, and list of images in an archive.
pub(super) const TEXT_CAP: u64 = 4 << 20;
/// Bytes that an export may unpack to. Images are not unpacked here, and the engine has its own disk.
pub(super) const MOST: u64 = 64 << 30;
/// Bytes of all that stands before the content of an entry: its header, and a long name or other extensions, which are read into memory.
const HEADERS_CAP: u64 = 256 << 10;

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

/// What an archive unpacks to, bounded.
pub(super) fn open(archive: &Path) -> io::Result<Reader> {
    Ok(MultiGzDecoder::new(BufReader::new(File::open(archive)?)).take(MOST))
}

/// Gives no more than is `left`.
pub(super) struct Bounded<R> {
    from: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !into.is_empty() {
            return Err(io::Error::other(format!("the header of an entry is longer than {} KiB", HEADERS_CAP >> 10)));
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        let count = self.from.read(into.get_mut(..most).unwrap_or_default())?;
        self.left.set(left.saturating_sub(count as u64));
        Ok(count)
    }
}

/// Shows the entries of an archive one after the other, until `take` breaks off with a value. The archive may have been made to do harm: what is read
/// into memory before an entry is shown is bounded, and an entry that is shorter than its header says is an error.
pub(super) fn each<R: Read, B>(
    from: R,
    mut take: impl FnMut(&mut Entry<'_, Bounded<R>>) -> io::Result<ControlFlow<B>>,
) -> io::Result<Option<B>> {
    let left = Rc::new(Cell::new(0));
    let mut archive = Archive::new(Bounded { from, left: Rc::clone(&left) });
    let mut entries = archive.entries()?;
    loop {
        left.set(HEADERS_CAP);
        let Some(mut entry) = entries.next().transpose()? else { return Ok(None) };
        left.set(u64::MAX);
        if let ControlFlow::Break(value) = take(&mut entry)? {
            return Ok(Some(value));
        }
        // Its length says nothing of how long it would take to read.
        if entry.header().entry_type().is_gnu_sparse() {
            return Err(io::Error::other("it has a sparse file"));
        }
        // Here and not by the iterator, which would read it as a part of the next header.
        io::copy(&mut entry, &mut io::sink())?;
        if u64::MAX - left.get() != entry.size() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an entry is cut off"));
        }
    }
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
    let first = each(open(archive)?, |first| Ok(ControlFlow::Break(described(first)?.is_some())))?;
    Ok(first.unwrap_or(false))
}

/// What the first entry says, if it says that this is an export. A source may have a `build.json` of its own.
fn described<R: Read>(first: &mut Entry<'_, R>) -> io::Result<Option<Described>> {
    let is_file = first.header().entry_type() == EntryType::Regular;
    if !is_file || top(&first.path()?).as_deref() != Some(BUILD) {
        return Ok(None);
    }
    let text = text(first)?.unwrap_or_default();
    Ok(serde_json::from_slice::<Described>(&text).ok().filter(|described| !described.id.is_empty()))
}

/// Looks through an archive. The error is for the person who sent it.
pub(crate) fn look(archive: &Path) -> Result<Kind, String> {
    let broken = |error: io::Error| format!("it is not a gzip-compressed tar archive, or it is cut off: {error}");
    let most = source_cap(archive).map_err(broken)?;
    let (mut build, mut services, mut has_source) = (None::<Described>, BTreeSet::new(), false);
    let refused = each(open(archive).map_err(broken)?, |entry| {
        let Some(build) = &build else {
            build = described(entry)?;
            return Ok(if build.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(None) });
        };
        let path = entry.path()?.into_owned();
        match (entry.header().entry_type(), top(&path)) {
            (EntryType::Regular, Some(name)) if name == SOURCE && build.options.is_some() => {
                if entry.size() > most {
                    return Ok(ControlFlow::Break(Some(format!("its {SOURCE} is longer than the export itself"))));
                }
                has_source = true;
            }
            (EntryType::Regular, Some(name)) if is_images(&name) => match super::loading::services(&name, entry) {
                Ok(held) => {
                    for service in held {
                        if !services.insert(service.clone()) {
                            return Ok(ControlFlow::Break(Some(format!("it has two images of service {service}"))));
                        }
                    }
                }
                Err(why) => return Ok(ControlFlow::Break(Some(why))),
            },
            // Directories of those who walked one.
            (EntryType::Directory, _) => {}
            _ => return Ok(ControlFlow::Break(Some(format!("{} in it is neither a source nor an image", path.display())))),
        }
        Ok(ControlFlow::Continue(()))
    });
    if let Some(Some(why)) = refused.map_err(broken)? {
        return Err(why);
    }
    let Some(build) = build else { return Ok(Kind::Source) };
    match (has_source, services.is_empty()) {
        (true, true) => Ok(Kind::Ours(build)),
        (false, false) => Ok(Kind::Images(build, services)),
        (true, false) => Err("it has a source and images, and is of nobody's making".to_owned()),
        (false, true) => Err(format!("the export of build {} holds neither a source nor an image: export it again", build.id)),
    }
}

/// The longest source that an export of ours can hold: it is not compressed in it, so what is longer is not of our making.
fn source_cap(archive: &Path) -> io::Result<u64> {
    Ok(archive.metadata()?.len())
}

/// Takes the source out of an export of ours.
pub(crate) fn take_source(archive: &Path, to: &mut File) -> io::Result<()> {
    let most = source_cap(archive)?;
    let taken = each(open(archive)?, |entry| {
        if top(&entry.path()?).as_deref() != Some(SOURCE) {
            return Ok(ControlFlow::Continue(()));
        }
        if entry.size() > most {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        io::copy(entry, to).map(|_| ControlFlow::Break(()))
    })?;
    taken.ok_or_else(|| io::ErrorKind::NotFound.into())
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

    /// A header of a long name that says 40 GiB, and the beginning of it.
    fn endless_name() -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_path("././@LongLink").unwrap();
        header.set_size(40 << 30);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(4 << 20, b'a');
        bytes
    }

    #[test]
    fn a_name_without_end_is_not_read_into_memory() {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&endless_name()).unwrap();
        let outer = kept(&gzip.finish().unwrap());
        let build = br#"{"id":"B1","app":"shop","manifest":"services: {}"}"#;
        let inner = kept(&packed(&[("build.json", build), ("shop.B1.tar", &endless_name())]));
        for archive in [&outer, &inner] {
            let refused = look(archive.path()).unwrap_err();
            assert!(refused.contains("the header of an entry is longer than 256 KiB"), "{refused}");
        }
        // As the source of a build that failed.
        assert!(is_export(outer.path()).unwrap_err().to_string().contains("longer than 256 KiB"));
        assert!(is_export(inner.path()).unwrap());
    }

    #[test]
    fn what_is_shorter_than_its_header_says_is_cut_off() {
        let build = br#"{"id":"B1","app":"shop","manifest":"services: {}"}"#;
        let mut inner = tar::Header::new_gnu();
        inner.set_path("blobs").unwrap();
        inner.set_size(1 << 20);
        inner.set_cksum();
        let refused = look(kept(&packed(&[("build.json", build), ("shop.B1.tar", inner.as_bytes())])).path()).unwrap_err();
        assert!(refused.contains("an entry is cut off"), "{refused}");
    }

    #[test]
    fn a_source_that_is_longer_than_its_export_is_not_taken_out() {
        let build = br#"{"id":"B1","app":"shop","manifest":"services: {}","options":{}}"#;
        let zeroes = vec![0; 1 << 20];
        let export = kept(&packed(&[("build.json", build), ("source.tgz", &zeroes)]));
        assert!(look(export.path()).unwrap_err().contains("source.tgz is longer than the export itself"));
        let mut taken = tempfile::tempfile().unwrap();
        assert_eq!(take_source(export.path(), &mut taken).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(taken.metadata().unwrap().len(), 0);
    }
}
