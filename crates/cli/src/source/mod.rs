//! The source of an app, packaged as the originals do: a gzip-compressed tar of a directory with relative names, honouring
//! `.dockerignore`. It goes through a temporary file, so that a large tree never stands in memory.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use convox_wire::dockerignore::Ignored;
use flate2::Compression;
use flate2::write::GzEncoder;
use thiserror::Error;

use crate::progress::{Counted, Progress};

/// Why a directory could not be packaged.
#[derive(Debug, Error)]
pub(crate) enum SourceError {
    /// The directory is not there, or is a file.
    #[error("{} is not a directory that can be read: {source}", path.display())]
    Directory { path: PathBuf, source: io::Error },
    /// Something below it could not be read.
    #[error("could not read {}: {source} (add it to .dockerignore if the app does not need it)", path.display())]
    Entry { path: PathBuf, source: io::Error },
    /// The temporary file could not be written.
    #[error("could not write the archive to a temporary file: {0} (is the disk full?)")]
    Archive(io::Error),
}

/// A packaged directory, ready to be sent.
pub(crate) struct Packaged {
    /// At its beginning; has no name on disk any more.
    pub(crate) file: File,
    /// Bytes in `file`.
    pub(crate) length: u64,
}

/// Packages `directory`; symbolic links inside stay links, the directory itself may be one.
pub(crate) fn package(directory: &Path, progress: Progress) -> Result<Packaged, SourceError> {
    let at = |source| SourceError::Directory { path: directory.to_path_buf(), source };
    let root = directory.canonicalize().map_err(at)?;
    fs::read_dir(&root).map_err(at)?;
    let ignored = match fs::read_to_string(root.join(".dockerignore")) {
        Ok(text) => Ignored::parse(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ignored::default(),
        Err(source) => return Err(SourceError::Entry { path: root.join(".dockerignore"), source }),
    };
    let mut archive = Archive {
        tar: tar::Builder::new(GzEncoder::new(tempfile::tempfile().map_err(SourceError::Archive)?, Compression::default())),
        root,
        ignored,
        progress,
    };
    archive.add_directory(Path::new(""))?;
    let mut file = archive.tar.into_inner().and_then(GzEncoder::finish).map_err(SourceError::Archive)?;
    let length = file.stream_position().map_err(SourceError::Archive)?;
    file.seek(SeekFrom::Start(0)).map_err(SourceError::Archive)?;
    Ok(Packaged { file, length })
}

struct Archive {
    tar: tar::Builder<GzEncoder<File>>,
    root: PathBuf,
    ignored: Ignored,
    progress: Progress,
}

impl Archive {
    /// Adds what is in `relative`, sorted, so that the same tree gives the same archive.
    fn add_directory(&mut self, relative: &Path) -> Result<(), SourceError> {
        let path = self.root.join(relative);
        let failed = |source| SourceError::Entry { path: path.clone(), source };
        let mut names = fs::read_dir(&path)
            .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>())
            .map_err(failed)?;
        names.sort_unstable();
        for name in names {
            self.add(&relative.join(name))?;
        }
        Ok(())
    }

    fn add(&mut self, relative: &Path) -> Result<(), SourceError> {
        let path = self.root.join(relative);
        let failed = |source| SourceError::Entry { path: path.clone(), source };
        let metadata = fs::symlink_metadata(&path).map_err(failed)?;
        let kind = metadata.file_type();
        let left_out = self.ignored.matches(relative);
        if kind.is_dir() {
            if left_out && !self.ignored.has_exceptions() {
                return Ok(());
            }
            if !left_out {
                self.append(relative, &metadata, tar::EntryType::Directory, None, io::empty())?;
            }
            return self.add_directory(relative);
        }
        if left_out {
            return Ok(());
        }
        if kind.is_symlink() {
            let target = fs::read_link(&path).map_err(failed)?;
            self.append(relative, &metadata, tar::EntryType::Symlink, Some(&target), io::empty())
        } else if kind.is_file() {
            let file = File::open(&path).map_err(failed)?;
            // A file that grows or shrinks meanwhile must not break the archive: exactly as many bytes as its header says.
            let exact = io::Read::take(io::Read::chain(file, io::repeat(0)), metadata.len());
            self.append(relative, &metadata, tar::EntryType::Regular, None, exact)
        } else {
            // Sockets, pipes and devices are not source.
            Ok(())
        }
    }

    fn append(
        &mut self,
        relative: &Path,
        metadata: &fs::Metadata,
        kind: tar::EntryType,
        target: Option<&Path>,
        content: impl io::Read,
    ) -> Result<(), SourceError> {
        let mut header = tar::Header::new_gnu();
        // Mode and time travel; who owns the file on this machine is nobody's business.
        header.set_metadata_in_mode(metadata, tar::HeaderMode::Complete);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(kind);
        header.set_size(if kind == tar::EntryType::Regular { metadata.len() } else { 0 });
        let content = Counted::new(content, &mut self.progress);
        match target {
            Some(target) => self.tar.append_link(&mut header, relative, target),
            None => self.tar.append_data(&mut header, relative, content),
        }
        .map_err(SourceError::Archive)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn unpacked(directory: &Path) -> BTreeMap<String, (tar::EntryType, Vec<u8>)> {
        let packaged = package(directory, Progress::alone("", None)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packaged.file));
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_string_lossy().trim_end_matches('/').to_owned();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (name, (entry.header().entry_type(), content))
            })
            .collect()
    }

    #[test]
    fn a_tree_is_packaged_with_relative_names_and_links_kept() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("lib/deep")).unwrap();
        fs::write(dir.path().join("convox.yml"), "services: {}").unwrap();
        fs::write(dir.path().join("lib/deep/code"), "x").unwrap();
        symlink("lib/deep/code", dir.path().join("link")).unwrap();
        let found = unpacked(dir.path());
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["convox.yml", "lib", "lib/deep", "lib/deep/code", "link"]);
        assert_eq!(found["convox.yml"].1, b"services: {}");
        assert_eq!(found["link"].0, tar::EntryType::Symlink);
    }

    #[test]
    fn what_dockerignore_names_stays_at_home_but_its_exceptions_travel() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["target/debug", "secrets"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["target/debug/app", "secrets/key", "secrets/public.pem", "a.log", "main.rs"] {
            fs::write(dir.path().join(file), file).unwrap();
        }
        fs::write(dir.path().join(".dockerignore"), "# noise\ntarget\n*.log\nsecrets/*\n!secrets/public.pem\n").unwrap();
        let found = unpacked(dir.path());
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, [".dockerignore", "main.rs", "secrets", "secrets/public.pem"]);
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_and_a_link_to_it_too() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for name in ["b", "a", "c"] {
            fs::write(tree.join(name), name).unwrap();
        }
        symlink(&tree, dir.path().join("alias")).unwrap();
        let bytes = |path: &Path| {
            let mut bytes = Vec::new();
            package(path, Progress::alone("", None)).unwrap().file.read_to_end(&mut bytes).unwrap();
            bytes
        };
        assert_eq!(bytes(&tree), bytes(&dir.path().join("alias")));
    }

    #[test]
    fn a_missing_directory_says_which() {
        let error = package(Path::new("/nonexistent/app"), Progress::alone("", None)).err().unwrap().to_string();
        assert!(error.contains("/nonexistent/app"), "{error}");
    }

    #[test]
    fn long_names_and_large_files_survive() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("n".repeat(120)).join("m".repeat(120));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("large"), vec![7u8; 3 << 20]).unwrap();
        let found = unpacked(dir.path());
        let (_, content) = found.iter().find(|(name, _)| name.ends_with("/large")).unwrap().1;
        assert_eq!(content.len(), 3 << 20);
    }
}
