//! Source directories as a whole: protected when they are done, deleted when they are old.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Takes the right to write from all directories of a tree; its files never had it.
pub(super) fn make_read_only(dir: &Path) -> io::Result<()> {
    // From the deepest up: what is protected already cannot be entered with less than reading.
    for dir in directories(dir)?.iter().rev() {
        std::fs::set_permissions(dir, Permissions::from_mode(0o555))?;
    }
    Ok(())
}

/// Deletes a tree, protected or not; absent is as good.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match dir.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    for dir in directories(dir)? {
        std::fs::set_permissions(dir, Permissions::from_mode(0o700))?;
    }
    std::fs::remove_dir_all(dir)
}

/// A directory and all below it, parents first. Follows no link.
fn directories(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![dir.to_owned()];
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        next += 1;
    }
    Ok(found)
}
