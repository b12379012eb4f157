//! How many processes the steps of one build may have together: a control group of ours above those that the engine makes for them.
//!
//! The API to build has no such limit, but it takes a place for the steps' groups. Engines that name places by their paths (the
//! driver `cgroupfs`) take one that we made.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use bollard::models::SystemInfoCgroupDriverEnum;

use super::{Engine, reason};

/// Directories of groups that are removed at once, and how deep: the engine makes one below ours.
const DEPTH: usize = 3;

/// The group of one build. Removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Bound {
    tree: Tree,
    /// From the root of the tree.
    path: PathBuf,
    most: u32,
}

/// Where the machine keeps its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Tree {
    /// The one that counts processes.
    pids: PathBuf,
    /// Whether it is the unified one (version 2), where what is counted below a group has to be said in it.
    is_unified: bool,
    /// All of them: engines make groups in each.
    all: Vec<PathBuf>,
}

impl Bound {
    /// The group of a build, with at most so many processes in it.
    pub(crate) fn new(prefix: &str, build: &str, most: u32) -> io::Result<Self> {
        Self::make(Tree::of_machine()?, &parent(prefix).join(build), most)
    }

    fn make(tree: Tree, path: &Path, most: u32) -> io::Result<Self> {
        let bound = Self { tree, path: path.to_owned(), most };
        let dir = bound.dir();
        // Once more, if the end of another build took the group above away.
        std::fs::create_dir_all(&dir).or_else(|_| std::fs::create_dir_all(&dir))?;
        if bound.tree.is_unified {
            // From the root down: a group can only be told to count what the one above it counts.
            let above: Vec<&Path> = path.ancestors().skip(1).collect();
            for above in above.into_iter().rev() {
                std::fs::write(bound.tree.pids.join(above).join("cgroup.subtree_control"), "+pids")?;
            }
        }
        std::fs::write(dir.join("pids.max"), most.to_string())?;
        Ok(bound)
    }

    /// Where the engine is to make its groups. With one more part, since Podman takes it for the step's own group, and removes that.
    pub(crate) fn place(&self) -> String {
        format!("/{}/step", self.path.display())
    }

    /// Whether it was ever full, as far as the kernel tells.
    pub(crate) fn was_full(&self) -> bool {
        let read = |file: &str| std::fs::read_to_string(self.dir().join(file)).unwrap_or_default();
        let refused = read("pids.events").lines().any(|line| line.strip_prefix("max ").is_some_and(|count| count != "0"));
        refused || read("pids.peak").trim().parse::<u32>().is_ok_and(|peak| peak >= self.most)
    }

    fn dir(&self) -> PathBuf {
        self.tree.pids.join(&self.path)
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        for root in &self.tree.all {
            // What a process is still in stays, and goes when the Rack starts again. Those above go with the last.
            remove(&root.join(&self.path), DEPTH);
            let mut above = self.path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
            while above.next().is_some_and(|above| std::fs::remove_dir(root.join(above)).is_ok()) {}
        }
    }
}

/// Whether builds can be bounded here: the error says why not. Removes what an earlier Rack left.
pub(crate) async fn check(engine: &Engine, prefix: &str) -> Result<(), String> {
    let info = engine.docker.info().await.map_err(|error| reason(&error))?;
    if info.cgroup_driver != Some(SystemInfoCgroupDriverEnum::CGROUPFS) {
        let driver = info.cgroup_driver.map_or_else(|| "none".to_owned(), |driver| driver.to_string());
        return Err(format!("the engine places groups by the driver {driver}, and takes places from others only with cgroupfs"));
    }
    let prefix = prefix.to_owned();
    let tried = tokio::task::spawn_blocking(move || {
        let tree = Tree::of_machine()?;
        tree.all.iter().for_each(|root| remove(&root.join(parent(&prefix)), DEPTH + 1));
        Bound::new(&prefix, "check", 1).map(drop)
    });
    let tried = tried.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    tried.map_err(|error| format!("a control group could not be made: {error}"))
}

impl Tree {
    fn of_machine() -> io::Result<Self> {
        Self::read(&std::fs::read_to_string("/proc/self/mounts")?)
            .ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no control groups that count processes are mounted"))
    }

    fn read(mounts: &str) -> Option<Self> {
        let (mut all, mut pids, mut unified) = (Vec::new(), None, None);
        for line in mounts.lines() {
            let mut words = line.split(' ');
            let (Some(_), Some(at), Some(kind), Some(options)) = (words.next(), words.next(), words.next(), words.next()) else { continue };
            match kind {
                "cgroup" if options.split(',').any(|option| option == "pids") => pids = Some(PathBuf::from(at)),
                "cgroup2" => unified = Some(PathBuf::from(at)),
                "cgroup" => {}
                _ => continue,
            }
            all.push(PathBuf::from(at));
        }
        let is_unified = pids.is_none();
        Some(Self { pids: pids.or(unified)?, is_unified, all })
    }
}

/// Above the groups of all builds of a Rack.
fn parent(prefix: &str) -> PathBuf {
    PathBuf::from(format!("{prefix}-builds"))
}

/// Removes a group and those below it, as far as they are empty.
fn remove(dir: &Path, depth: usize) {
    let inner = std::fs::read_dir(dir).into_iter().flatten().flatten().filter(|_| depth > 0);
    for group in inner.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove(&group.path(), depth - 1);
    }
    let _ = std::fs::remove_dir(dir);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_counted_where_the_machine_counts_them() {
        let one = "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\ncgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\nproc /proc proc rw 0 0\n";
        let tree = Tree::read(one).unwrap();
        assert_eq!((tree.pids.as_path(), tree.is_unified, tree.all.len()), (Path::new("/sys/fs/cgroup/pids"), false, 3));
        let two = Tree::read("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").unwrap();
        assert_eq!((two.pids.as_path(), two.is_unified), (Path::new("/sys/fs/cgroup"), true));
        assert_eq!(Tree::read("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn in_the_unified_tree_every_group_above_is_told_to_count() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree { pids: dir.path().to_owned(), is_unified: true, all: vec![dir.path().to_owned()] };
        let bound = Bound::make(tree, Path::new("rack-builds/B1"), 7).unwrap();
        let read = |file: &str| std::fs::read_to_string(dir.path().join(file)).unwrap_or_default();
        assert_eq!((read("cgroup.subtree_control"), read("rack-builds/cgroup.subtree_control")), ("+pids".into(), "+pids".into()));
        assert_eq!((read("rack-builds/B1/pids.max"), bound.place()), ("7".into(), "/rack-builds/B1/step".into()));
        assert!(!bound.was_full());
        std::fs::write(dir.path().join("rack-builds/B1/pids.peak"), "7\n").unwrap();
        assert!(bound.was_full());
    }

    #[test]
    fn a_group_is_told_to_count_only_after_the_one_above_it_and_none_is_left_of_a_failure() {
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree { pids: dir.path().to_owned(), is_unified: true, all: vec![dir.path().to_owned()] };
        // The root refuses.
        std::fs::create_dir(dir.path().join("cgroup.subtree_control")).unwrap();
        Bound::make(tree, Path::new("above/rack-builds/B1"), 7).unwrap_err();
        // A file that was written below would have kept its directory.
        assert!(!dir.path().join("above").exists());
    }
}
