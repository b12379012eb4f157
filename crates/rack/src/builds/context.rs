//! The part of a source that an engine gets to build from, as a tar archive in a stream.

use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use convox_wire::dockerignore::Ignored;
use tokio::sync::mpsc;

/// Bytes of one piece on its way to the engine.
const PIECE: usize = 64 * 1024;
/// Pieces on their way. The reader of the files waits for the engine.
const PIECES: usize = 8;

/// Streams the directory without what its `.dockerignore` names. The Dockerfile and the `.dockerignore` always go along, as
/// with Docker's own client. Ends soon after nobody takes the pieces any more.
pub(super) fn stream(dir: PathBuf, dockerfile: String, ignored: &str) -> mpsc::Receiver<io::Result<Bytes>> {
    let ignored = Ignored::parse(ignored);
    pieces_of(move |out| write(&dir, &dockerfile, &ignored, out))
}

/// What somebody writes, on a thread that may block, as pieces.
pub(crate) fn pieces_of(write: impl FnOnce(&mut Pieces) -> io::Result<()> + Send + 'static) -> mpsc::Receiver<io::Result<Bytes>> {
    let (to, pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut out = Pieces { to: to.clone(), piece: Vec::with_capacity(PIECE) };
        if let Err(error) = write(&mut out).and_then(|()| out.flush()) {
            // Nobody listens any more if the build has ended already.
            let _ = to.blocking_send(Err(error));
        }
    });
    pieces
}

fn write(dir: &Path, dockerfile: &str, ignored: &Ignored, out: &mut Pieces) -> io::Result<()> {
    let to = out.to.clone();
    let always = [Path::new(dockerfile), Path::new(".dockerignore")];
    let mut archive = tar::Builder::new(out);
    archive.follow_symlinks(false);
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let mut entries: Vec<_> = std::fs::read_dir(dir.join(&relative))?.collect::<io::Result<_>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            if to.is_closed() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let path = relative.join(entry.file_name());
            let is_ignored = ignored.matches(&path) && !always.contains(&path.as_path());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let holds_always = always.iter().any(|wanted| wanted.starts_with(&path));
                if is_ignored && !ignored.has_exceptions() && !holds_always {
                    continue;
                }
                if !is_ignored {
                    append(&mut archive, &path, &entry, tar::EntryType::Directory)?;
                }
                open.push(path);
            } else if !is_ignored && kind.is_symlink() {
                append(&mut archive, &path, &entry, tar::EntryType::Symlink)?;
            } else if !is_ignored && kind.is_file() {
                append(&mut archive, &path, &entry, tar::EntryType::Regular)?;
            }
        }
    }
    archive.finish()
}

fn append(archive: &mut tar::Builder<&mut Pieces>, path: &Path, entry: &std::fs::DirEntry, kind: tar::EntryType) -> io::Result<()> {
    let meta = entry.metadata()?;
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    // The source is read-only here, and an image's owner may write.
    let runs = meta.permissions().mode() & 0o111 != 0;
    header.set_mode(if kind.is_dir() || runs { 0o755 } else { 0o644 });
    header.set_size(if kind.is_file() { meta.len() } else { 0 });
    match kind {
        tar::EntryType::Symlink => archive.append_link(&mut header, path, std::fs::read_link(entry.path())?),
        tar::EntryType::Regular => archive.append_data(&mut header, path, std::fs::File::open(entry.path())?),
        _ => archive.append_data(&mut header, path, io::empty()),
    }
}

/// Cuts what is written into pieces.
pub(crate) struct Pieces {
    to: mpsc::Sender<io::Result<Bytes>>,
    piece: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn names(dir: &Path, dockerfile: &str) -> Vec<String> {
        let ignored = std::fs::read_to_string(dir.join(".dockerignore")).unwrap();
        let mut pieces = stream(dir.to_owned(), dockerfile.to_owned(), &ignored);
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        let mut archive = tar::Archive::new(bytes.as_slice());
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[tokio::test]
    async fn ignored_files_stay_behind_and_the_dockerfile_never_does() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            (".dockerignore", "*\n!app\nbuild/Dockerfile\n"),
            ("app/main", "x"),
            ("secret", "x"),
            ("build/Dockerfile", "FROM scratch"),
            ("build/notes", "x"),
        ] {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        std::fs::write(dir.path().join("app/large"), vec![7; 3 * PIECE + 1]).unwrap();
        let found = names(dir.path(), "build/Dockerfile").await;
        assert_eq!(found, [".dockerignore", "app", "build/Dockerfile", "app/large", "app/main"]);
    }
}
