//! Unpacks a source archive that may have been made to do harm.
//!
//! Every entry is made relative to an open directory, one path component at a time, following no
//! link. A symbolic link may only point to what lies in the archive: up at most to its root, then
//! down. Sizes, numbers and depths are bounded, whatever the archive says of itself.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, linkat, mkdirat, openat, symlinkat, unlinkat};
use rustix::io::Errno;
use tar::{Archive, EntryType};
use tokio_util::sync::CancellationToken;

use super::BuildLimits;

/// Longest path, as the kernel has it.
const PATH_CAP: usize = 4095;
/// Most directories in each other.
const DEPTH_CAP: usize = 64;
/// Longest extension record: a path and a link with room to spare.
const EXTENSION_CAP: u64 = 64 * 1024;
/// What an entry is counted as, beside its content.
const ENTRY_BYTES: u64 = 512;

/// What was unpacked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unpacked {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Why an archive was refused: a text for the person who sent it.
#[derive(Debug)]
pub(super) struct Refused(pub(super) String);

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the Rack's disk is full".to_owned(),
            _ => format!("the source is not a gzip-compressed tar archive, or it is cut off: {error}"),
        })
    }
}

/// Unpacks `archive` into `dir`, which must be new and empty, until it is told to stop.
pub(super) fn unpack(archive: &Path, dir: &Path, limits: BuildLimits, stop: &CancellationToken) -> Result<Unpacked, Refused> {
    let file = File::open(archive).map_err(|error| Refused(format!("the uploaded source cannot be read: {error}")))?;
    let root = openat(CWD, dir, directory_flags(), Mode::empty()).map_err(io::Error::from)?;
    let mut unpacking = Unpacking { root, limits, stop, done: Unpacked::default(), entries: 0, parent: None };
    // The decoder is bounded too: headers and padding are bytes that no entry accounts for.
    let most = limits.bytes.saturating_add(limits.entries.saturating_mul(4 * ENTRY_BYTES));
    let mut archive = Archive::new(MultiGzDecoder::new(BufReader::new(file)).take(most));
    let mut extension = Extension::default();
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        unpacking.count(1, ENTRY_BYTES)?;
        let header = entry.header().clone();
        match header.entry_type() {
            EntryType::GNULongName => extension.path = Some(read_name(&mut entry)?),
            EntryType::GNULongLink => extension.link = Some(read_name(&mut entry)?),
            EntryType::XHeader => extension.read_pax(&read_bounded(&mut entry)?)?,
            EntryType::XGlobalHeader => {}
            kind => {
                let extension = std::mem::take(&mut extension);
                let path = extension.path.map_or_else(|| header.path_bytes(), Cow::Owned);
                let link = extension.link.map(Cow::Owned).or_else(|| header.link_name_bytes());
                let mode = header.mode().unwrap_or(0o644);
                unpacking.add(kind, &path, link.as_deref().unwrap_or_default(), mode, &mut entry)?;
            }
        }
    }
    Ok(unpacking.done)
}

struct Unpacking<'a> {
    root: OwnedFd,
    limits: BuildLimits,
    stop: &'a CancellationToken,
    done: Unpacked,
    entries: u64,
    /// The directory of the last entry: the next one is mostly in it, too.
    parent: Option<(Vec<Vec<u8>>, OwnedFd)>,
}

impl Unpacking<'_> {
    /// Counts entries, which cost something even if they are empty, and bytes.
    fn count(&mut self, entries: u64, bytes: u64) -> Result<(), Refused> {
        if self.stop.is_cancelled() {
            return Err(Refused("the build was cancelled".to_owned()));
        }
        self.entries += entries;
        self.done.bytes = self.done.bytes.saturating_add(bytes);
        if self.entries > self.limits.entries {
            return Err(Refused(format!(
                "the source has more than {} entries; exclude what is not needed in .dockerignore",
                self.limits.entries
            )));
        }
        if self.done.bytes > self.limits.bytes {
            return Err(Refused(format!(
                "the source unpacks to more than {} MB; exclude what is not needed in .dockerignore",
                self.limits.bytes >> 20
            )));
        }
        Ok(())
    }

    fn add(&mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, content: &mut impl Read) -> Result<(), Refused> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let refused = |what: &str| Refused(format!("entry {shown:?} of the source {what}"));
        let components = components(path).map_err(&refused)?;
        let Some((name, parents)) = components.split_last() else {
            return if kind.is_dir() { Ok(()) } else { Err(refused("has no name")) };
        };
        if kind.is_dir() {
            self.enter(&components).map_err(|error| refused(&explain(error)))?;
            return Ok(());
        }
        let root = self.root.try_clone()?;
        let parent = self.enter(parents).map_err(|error| refused(&explain(error)))?.try_clone()?;
        let name = OsStr::from_bytes(name);
        if kind.is_symlink() {
            check_target(link, parents.len()).map_err(&refused)?;
            replace(&parent, name, || symlinkat(OsStr::from_bytes(link), &parent, name)).map_err(|error| refused(&explain(error)))?;
        } else if kind.is_hard_link() {
            let target = self::components(link).map_err(&refused)?;
            let Some((target_name, target_parents)) = target.split_last() else {
                return Err(refused("is a hard link to nothing"));
            };
            let target_name = OsStr::from_bytes(target_name);
            let found = walk(root, target_parents, false).map_err(|error| refused(&explain(error)))?;
            // Only to a regular file: a link to a link would be one that nobody checked here.
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = openat(&found, target_name, flags, Mode::empty()).map_err(|error| refused(&explain(error)))?;
            if !File::from(file).metadata()?.is_file() {
                return Err(refused("is a hard link to something else than a file"));
            }
            if target != components {
                replace(&parent, name, || linkat(&found, target_name, &parent, name, AtFlags::empty()))
                    .map_err(|error| refused(&explain(error)))?;
            }
        } else if kind.is_file() || kind.is_contiguous() {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = replace(&parent, name, || openat(&parent, name, flags, Mode::RUSR | Mode::WUSR))
                .map_err(|error| refused(&explain(error)))?;
            self.fill(File::from(file), mode, content)?;
            self.done.files += 1;
        } else {
            return Err(refused("is neither a file, a directory nor a link; leave it out in .dockerignore"));
        }
        Ok(())
    }

    fn fill(&mut self, mut file: File, mode: u32, content: &mut impl Read) -> Result<(), Refused> {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            self.count(0, count as u64)?;
            file.write_all(buffer.get(..count).unwrap_or_default())?;
        }
        let mode = if mode & 0o111 == 0 { 0o444 } else { 0o555 };
        fchmod(file.as_fd(), Mode::from_raw_mode(mode)).map_err(io::Error::from)?;
        Ok(())
    }

    /// The directory of these components, made where it is not there yet.
    fn enter(&mut self, components: &[Vec<u8>]) -> rustix::io::Result<&OwnedFd> {
        let is_open = self.parent.as_ref().is_some_and(|(open, _)| open == components);
        if !is_open {
            let root = self.root.try_clone().map_err(|_| Errno::MFILE)?;
            self.parent = Some((components.to_vec(), walk(root, components, true)?));
        }
        self.parent.as_ref().map(|(_, open)| open).ok_or(Errno::NOENT)
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn walk(root: OwnedFd, components: &[Vec<u8>], make: bool) -> rustix::io::Result<OwnedFd> {
    let mut at = root;
    for component in components {
        let name = OsStr::from_bytes(component);
        if make {
            match mkdirat(&at, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        at = openat(&at, name, directory_flags(), Mode::empty())?;
    }
    Ok(at)
}

/// Makes something, in the stead of an earlier entry of the same name if there is one.
fn replace<T>(parent: &OwnedFd, name: &OsStr, make: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(parent, name, AtFlags::empty())?;
            make()
        }
        other => other,
    }
}

/// The components of an entry's path below the root.
fn components(path: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    if path.starts_with(b"/") {
        return Err("has an absolute path");
    }
    if path.len() > PATH_CAP || path.contains(&0) {
        return Err("has a path that no file can have");
    }
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => return Err("leads out of the source by `..`"),
            name if name.len() > 255 => return Err("has a name longer than 255 bytes"),
            name => components.push(name.to_vec()),
        }
    }
    if components.len() > DEPTH_CAP {
        return Err("lies deeper than 64 directories");
    }
    Ok(components)
}

/// Accepts the target of a symbolic link that lies `depth` directories below the root if it goes
/// up no further than the root, and only before it goes down. Then following it, through other
/// accepted links too, never leads out: each step down from a real directory stays inside.
fn check_target(target: &[u8], depth: usize) -> Result<(), &'static str> {
    if target.is_empty() || target.len() > PATH_CAP || target.contains(&0) {
        return Err("is a symbolic link to nothing");
    }
    if target.starts_with(b"/") {
        return Err("is a symbolic link to an absolute path");
    }
    let (mut up, mut is_down) = (0, false);
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if is_down => return Err("is a symbolic link that goes down and up again; write its target plainly"),
            b".." => up += 1,
            _ => is_down = true,
        }
    }
    if up > depth { Err("is a symbolic link that leads out of the source") } else { Ok(()) }
}

fn explain(error: Errno) -> String {
    match error {
        Errno::LOOP | Errno::NOTDIR => "lies behind a link or a file".to_owned(),
        Errno::ISDIR | Errno::PERM => "would replace a directory".to_owned(),
        Errno::NOENT => "is a hard link to something that is not in the source before it".to_owned(),
        Errno::NOSPC | Errno::DQUOT => "does not fit on the Rack's disk".to_owned(),
        other => format!("cannot be written: {other}"),
    }
}

/// What extension records say of the entry that follows them.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Extension {
    /// Records `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn read_pax(&mut self, mut records: &[u8]) -> Result<(), Refused> {
        let malformed = || Refused("the source has a malformed extension record".to_owned());
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
            let length = records.get(..space).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<usize>().ok());
            let length = length.filter(|length| *length > space).ok_or_else(malformed)?;
            let record = records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
            let (key, value) = record.split_at(equals);
            let value = value.get(1..).unwrap_or_default().to_vec();
            match key {
                b"path" => self.path = Some(value),
                b"linkpath" => self.link = Some(value),
                b"size" => return Err(Refused("the source has a file of more than 8 GB".to_owned())),
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(Refused("the source has a sparse file; leave it out in .dockerignore".to_owned()));
                }
                _ => {}
            }
            records = records.get(length..).unwrap_or_default();
        }
        Ok(())
    }
}

fn read_bounded(entry: &mut impl Read) -> Result<Vec<u8>, Refused> {
    let mut bytes = Vec::new();
    entry.take(EXTENSION_CAP + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > EXTENSION_CAP {
        return Err(Refused("the source has an extension record that is too long".to_owned()));
    }
    Ok(bytes)
}

/// A long name ends at its first NUL.
fn read_name(entry: &mut impl Read) -> Result<Vec<u8>, Refused> {
    let mut bytes = read_bounded(entry)?;
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    Ok(bytes)
}
