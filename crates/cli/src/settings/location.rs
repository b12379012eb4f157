//! Which directory holds the user's settings.
//!
//! `CONVOX_CONFIG`; else `~/.convox` if it is there; else `convox` in the platform's configuration directory, or `convox2`
//! (the v2 command line's) if only that is there. There is no fallback to a directory that is shared with others.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::error::Failure;

/// Finds the directory; touches nothing.
pub(crate) fn find(env: &Env) -> Result<PathBuf, Failure> {
    if let Some(dir) = env.var("CONVOX_CONFIG") {
        return Ok(env.cwd().join(dir));
    }
    let home = env.var("HOME").or_else(|| env.var("USERPROFILE")).map(PathBuf::from);
    if let Some(dir) = home.as_ref().map(|home| home.join(".convox"))
        && dir.is_dir()
    {
        return Ok(dir);
    }
    let base = platform(env, home.as_deref())
        .ok_or_else(|| Failure::new("no home directory, so no place for settings").hint("set HOME, or set CONVOX_CONFIG to a directory"))?;
    let (v3, v2) = (base.join("convox"), base.join("convox2"));
    Ok(if !v3.is_dir() && v2.is_dir() { v2 } else { v3 })
}

fn platform(env: &Env, home: Option<&Path>) -> Option<PathBuf> {
    if let Some(text) = env.var("XDG_CONFIG_HOME") {
        let path = match (text.strip_prefix("~/").or_else(|| text.strip_prefix("$HOME/")), home) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(text),
        };
        if path.is_absolute() {
            return Some(path);
        }
    }
    if cfg!(target_os = "macos") {
        return Some(home?.join("Library/Preferences"));
    }
    if cfg!(windows) {
        let local = env.var("LOCALAPPDATA").map(PathBuf::from);
        return local.or_else(|| Some(PathBuf::from(env.var("APPDATA")?).join("Local"))).or_else(|| Some(home?.join("AppData/Local")));
    }
    Some(home?.join(".config"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_is_found_in_the_documented_order() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        let home_text = home.path().to_str().unwrap();
        let find_with = |vars: &[(&str, &str)]| find(&Env::fake(vars, home.path())).unwrap();

        if cfg!(target_os = "linux") {
            assert_eq!(find_with(&[("HOME", home_text)]), path(".config/convox"));
            std::fs::create_dir_all(path(".config/convox2")).unwrap();
            assert_eq!(find_with(&[("HOME", home_text)]), path(".config/convox2"));
            std::fs::create_dir_all(path(".config/convox")).unwrap();
            assert_eq!(find_with(&[("HOME", home_text)]), path(".config/convox"));
        }
        assert_eq!(find_with(&[("HOME", home_text), ("XDG_CONFIG_HOME", "/etc/x")]), Path::new("/etc/x/convox"));
        assert_eq!(find_with(&[("HOME", home_text), ("XDG_CONFIG_HOME", "~/x")]), path("x/convox"));
        if cfg!(target_os = "linux") {
            assert_eq!(find_with(&[("HOME", home_text), ("XDG_CONFIG_HOME", "relative")]), path(".config/convox"));
        }
        std::fs::create_dir_all(path(".convox")).unwrap();
        assert_eq!(find_with(&[("HOME", home_text), ("XDG_CONFIG_HOME", "/etc/x")]), path(".convox"));
        assert_eq!(find_with(&[("HOME", home_text), ("CONVOX_CONFIG", "/c")]), Path::new("/c"));
        assert!(find(&Env::fake(&[], home.path())).is_err() || cfg!(windows));
    }
}
