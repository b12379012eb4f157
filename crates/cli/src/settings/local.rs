//! `./.convox/{app,rack,account}` of a project: which app, Rack and account commands mean when they run in this directory. Names only, never
//! a key.
//!
//! Only the current directory counts, never its parents, as with the originals. `./.convox2` is where v2 keeps them.

use std::path::Path;

/// One local setting and the file that it is from; `None` when no file says anything.
pub(crate) fn read(cwd: &Path, name: &str) -> Option<(String, String)> {
    [".convox", ".convox2"].into_iter().find_map(|folder| {
        let text = std::fs::read_to_string(cwd.join(folder).join(name)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| (text.to_owned(), format!("./{folder}/{name}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_directory_speaks_for_itself_alone() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("below");
        std::fs::create_dir_all(dir.path().join(".convox2")).unwrap();
        std::fs::create_dir_all(&below).unwrap();
        std::fs::write(dir.path().join(".convox2/app"), " shop \n").unwrap();
        assert_eq!(read(dir.path(), "app"), Some(("shop".to_owned(), "./.convox2/app".to_owned())));
        assert_eq!(read(&below, "app"), None);
        std::fs::create_dir_all(dir.path().join(".convox")).unwrap();
        std::fs::write(dir.path().join(".convox/app"), "").unwrap();
        assert_eq!(read(dir.path(), "app").unwrap().0, "shop");
        std::fs::write(dir.path().join(".convox/app"), "other").unwrap();
        assert_eq!(read(dir.path(), "app").unwrap().0, "other");
    }
}
