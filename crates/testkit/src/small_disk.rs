//! A disk of its own for the data of a server, so small that it can be full.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Mounted in memory; unmounted when it is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Whether there can be one: only root may mount.
    pub fn is_possible() -> bool {
        rustix::process::getuid().is_root()
    }

    /// Of that size, such as `8m`, in place of a directory.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(at: &Path, size: &str) -> Self {
        let options = format!("size={size},mode=700");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(at).status();
        assert!(mounted.is_ok_and(|status| status.success()), "run as root: this test mounts a small disk");
        Self(at.to_owned())
    }

    fn full(&self) -> PathBuf {
        self.0.join("full")
    }

    /// Uses it up to the last byte; again what was given back since the last time.
    ///
    /// # Panics
    /// When there is no room for a file that is empty.
    pub fn fill(&self) {
        let opened = File::options().create(true).append(true).open(self.full());
        let Ok(mut file) = opened else { panic!("{}: {opened:?}", self.full().display()) };
        for size in [65_536, 4096, 512, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Gives all that room back.
    pub fn empty(&self) {
        let _ = std::fs::remove_file(self.full());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
