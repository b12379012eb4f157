//! Where the entries of an archive of images lie.
//!
//! Engines read such an archive by cleaned names, or unpack it first and follow its links. A name that leads elsewhere than it says, by `..` or through
//! a link, would be a list of images that nobody looked at.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

/// Most entries. An image has at most 127 layers, and each a few files.
const ENTRIES: u32 = 100_000;
/// Longest name. Archives of images name files by digests.
const NAME_CAP: usize = 512;

/// The places of the entries so far.
#[derive(Default)]
pub(super) struct Places {
    entries: u32,
    links: BTreeSet<PathBuf>,
}

impl Places {
    /// The true place of the next entry: nothing but names, none of which is a link. Empty for the top itself.
    pub(super) fn of(&mut self, path: &Path, kind: EntryType) -> io::Result<PathBuf> {
        self.entries += 1;
        if self.entries > ENTRIES {
            return Err(io::Error::other(format!("it has more than {ENTRIES} entries")));
        }
        if path.as_os_str().len() > NAME_CAP {
            return Err(io::Error::other(format!("it has a name of more than {NAME_CAP} bytes")));
        }
        let refused = |why: &str| Err(io::Error::other(format!("its entry {:?} {why}", path.display().to_string())));
        let mut place = PathBuf::new();
        for part in path.components() {
            match part {
                Component::Normal(name) if !name.as_bytes().contains(&0) => place.push(name),
                Component::CurDir | Component::RootDir => {}
                _ => return refused("leads elsewhere than it says"),
            }
        }
        if place.ancestors().any(|above| self.links.contains(above)) {
            return refused("lies behind a link, or in the place of one");
        }
        if kind.is_symlink() || kind.is_hard_link() {
            if place.components().count() < 2 {
                return refused("is a link at the top, where its list of images is");
            }
            self.links.insert(place.clone());
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lies_where_its_name_leads_or_is_refused() {
        let mut places = Places::default();
        let mut of =
            |path: &str, kind| places.of(Path::new(path), kind).map(|place| place.display().to_string()).map_err(|e| e.to_string());
        assert_eq!(of("./", EntryType::Directory).unwrap(), "");
        assert_eq!(of("/./a//layer.tar", EntryType::Regular).unwrap(), "a/layer.tar");
        // As `docker save` has them.
        assert_eq!(of("b/layer.tar", EntryType::Symlink).unwrap(), "b/layer.tar");
        for (path, kind, told) in [
            ("a/../index.json", EntryType::Regular, "elsewhere"),
            ("index.json\0a", EntryType::Regular, "elsewhere"),
            ("b/layer.tar/index.json", EntryType::Regular, "behind a link"),
            ("b/layer.tar", EntryType::Regular, "in the place of one"),
            ("./index.json", EntryType::Link, "a link at the top"),
            ("/", EntryType::Symlink, "a link at the top"),
            (&"a/".repeat(300), EntryType::Directory, "more than 512 bytes"),
        ] {
            let refused = of(path, kind).unwrap_err();
            assert!(refused.contains(told), "{path}: {refused}");
        }
        places.entries = ENTRIES;
        assert!(places.of(Path::new("a"), EntryType::Regular).unwrap_err().to_string().contains("100000 entries"));
    }
}
