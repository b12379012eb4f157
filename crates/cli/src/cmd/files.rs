//! `cp`: files into a process, out of it, or from one to another. A tar travels, with absolute names that are unpacked at `/`.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use convox_client::Body;
use convox_wire::options::FilesUploadOptions;

use super::builds::{length, size, stream_of};
use crate::Ctx;
use crate::args::Cp;
use crate::error::Failure;
use crate::progress::Progress;
use crate::reach::Reached;

/// A place: `PID:/path`, or a path of this machine.
enum Place<'a> {
    Process(&'a str, &'a str),
    Here(&'a str),
}

impl<'a> Place<'a> {
    fn parse(text: &'a str) -> Result<Self, Failure> {
        match text.split_once(':') {
            Some((process, path)) if path.starts_with('/') => Ok(Self::Process(process, path)),
            Some(_) => Err(Failure::new("must specify absolute paths for processes").hint("PID:/absolute/path")),
            None => Ok(Self::Here(text)),
        }
    }
}

pub(super) async fn run(ctx: &Ctx, args: Cp) -> Result<u8, Failure> {
    let (from, to) = (Place::parse(&args.source)?, Place::parse(&args.destination)?);
    if let (Place::Here(_), Place::Here(_)) = (&from, &to) {
        return Err(Failure::new("neither of the two names a process").hint("convox cp PID:/path . or convox cp ./path PID:/path"));
    }
    let app = ctx.app(&args.app)?;
    let rack = ctx.rack(&args.rack).await?;
    let options = FilesUploadOptions { tar_extra: args.tar_extra.clone() };
    if let (Place::Here(_), Some(_)) = (&to, &args.tar_extra) {
        return Err(Failure::new("--tar-extra is for the tar in a process; nothing is unpacked in one here"));
    }
    let archive = match from {
        Place::Process(process, path) => (download(&rack, &app, process, path).await?, path),
        Place::Here(path) => (tempfile::tempfile().map_err(|error| cannot("a temporary file", &error))?, path),
    };
    match (from, to) {
        (Place::Process(..), Place::Here(target)) => unpack(archive.0, archive.1, Path::new(target))?,
        (Place::Process(..), Place::Process(process, target)) => {
            let moved = moved(archive.0, archive.1, target)?;
            rack.client.files_upload(&app, process, sent(moved), &options).await?;
        }
        (Place::Here(source), Place::Process(process, target)) => {
            let packed = pack(Path::new(source), target)?;
            // Asked first, so that a key or a session is refused before the files have travelled.
            rack.client.process(&app, process).await?;
            rack.client.files_upload(&app, process, sent(packed), &options).await?;
        }
        (Place::Here(_), Place::Here(_)) => {}
    }
    if ctx.out.is_json() {
        ctx.out.json(&serde_json::json!({"from": args.source, "to": args.destination}))?;
    }
    Ok(0)
}

fn cannot(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("could not copy {what}: {error}"))
}

/// An archive on its way, with how far it is.
fn sent(archive: File) -> Body {
    let total = size(&archive);
    stream_of(archive, Progress::alone("Sending files", total))
}

async fn download(rack: &Reached, app: &str, process: &str, path: &str) -> Result<File, Failure> {
    let mut reply = rack.client.files_download(app, process, path).await?;
    let mut file = tempfile::tempfile().map_err(|error| cannot("a temporary file", &error))?;
    let mut progress = Progress::alone("Receiving files", length(&reply));
    while let Some(piece) = reply.chunk().await? {
        file.write_all(&piece).map_err(|error| cannot(path, &error))?;
        progress.add(piece.len());
    }
    file.seek(SeekFrom::Start(0)).map_err(|error| cannot(path, &error))?;
    Ok(file)
}

/// What of `name` lies below the path that was asked for: servers give the whole path, or begin with its last piece.
fn below(name: &Path, asked: &str) -> Option<PathBuf> {
    let name: PathBuf = name.components().filter(|part| !matches!(part, Component::RootDir | Component::CurDir)).collect();
    if name.components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let whole = Path::new(asked.trim_matches('/'));
    if let Ok(rest) = name.strip_prefix(whole) {
        return Some(rest.to_owned());
    }
    let last = Path::new(whole.file_name()?);
    name.strip_prefix(last).ok().map(Path::to_owned)
}

/// Writes files and directories below `target`, and nothing else: no links, nothing outside of it.
fn unpack(archive: File, asked: &str, target: &Path) -> Result<(), Failure> {
    let mut entries = tar::Archive::new(archive);
    let failed = |error: &io::Error| cannot(asked, error);
    // As `cp`: into a directory that is there, onto anything else.
    let target = match Path::new(asked.trim_end_matches('/')).file_name() {
        Some(name) if target.is_dir() => target.join(name),
        _ => target.to_owned(),
    };
    let mut found = false;
    for entry in entries.entries().map_err(|error| failed(&error))? {
        let mut entry = entry.map_err(|error| failed(&error))?;
        let name = entry.path().map_err(|error| failed(&error))?.into_owned();
        let rest = below(&name, asked).ok_or_else(|| Failure::new(format!("illegal file path in archive: {}", name.display())))?;
        let place = if rest.as_os_str().is_empty() { target.clone() } else { target.join(rest) };
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            fs::create_dir_all(&place).map_err(|error| failed(&error))?;
        } else if kind.is_file() {
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent).map_err(|error| failed(&error))?;
            }
            let mut file = File::create(&place).map_err(|error| cannot(&place.display().to_string(), &error))?;
            io::copy(&mut entry, &mut file).map_err(|error| failed(&error))?;
            mark(&file, entry.header().mode().unwrap_or(0o644));
        }
        found = true;
    }
    if found { Ok(()) } else { Err(Failure::new(format!("nothing came for {asked}"))) }
}

#[cfg(unix)]
fn mark(file: &File, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    // A set-user-id bit of somebody else's file is not for this machine.
    let _ = file.set_permissions(fs::Permissions::from_mode(mode & 0o777));
}

#[cfg(not(unix))]
fn mark(_file: &File, _mode: u32) {}

/// `target` and what is below it, as the names of an archive: relative, because they are unpacked at `/`.
fn inner(target: &str) -> &Path {
    Path::new(target.trim_start_matches('/'))
}

fn pack(source: &Path, target: &str) -> Result<File, Failure> {
    let failed = |error: &io::Error| cannot(&source.display().to_string(), error);
    let whole = source.canonicalize().map_err(|error| failed(&error))?;
    let mut archive = tar::Builder::new(tempfile::tempfile().map_err(|error| failed(&error))?);
    archive.follow_symlinks(false);
    // As `cp`: what ends with a slash is a directory to copy into.
    let into = match whole.file_name() {
        Some(name) if target.ends_with('/') => inner(target).join(name),
        _ => inner(target).to_owned(),
    };
    if into.as_os_str().is_empty() {
        return Err(Failure::new("`/` of a process is no place to copy to").hint("PID:/directory/"));
    }
    let packed = if whole.is_dir() { archive.append_dir_all(&into, &whole) } else { archive.append_path_with_name(&whole, &into) };
    packed.map_err(|error| failed(&error))?;
    rewound(archive).map_err(|error| failed(&error))
}

fn moved(archive: File, asked: &str, target: &str) -> Result<File, Failure> {
    let failed = |error: &io::Error| cannot(asked, error);
    let mut entries = tar::Archive::new(archive);
    let mut moved = tar::Builder::new(tempfile::tempfile().map_err(|error| failed(&error))?);
    for entry in entries.entries().map_err(|error| failed(&error))? {
        let entry = entry.map_err(|error| failed(&error))?;
        let name = entry.path().map_err(|error| failed(&error))?.into_owned();
        let rest = below(&name, asked).ok_or_else(|| Failure::new(format!("illegal file path in archive: {}", name.display())))?;
        let mut header = entry.header().clone();
        if header.entry_type().is_dir() || header.entry_type().is_file() {
            let name = if rest.as_os_str().is_empty() { inner(target).to_owned() } else { inner(target).join(rest) };
            moved.append_data(&mut header, name, entry).map_err(|error| failed(&error))?;
        }
    }
    rewound(moved).map_err(|error| failed(&error))
}

fn rewound(archive: tar::Builder<File>) -> io::Result<File> {
    let mut file = archive.into_inner()?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_below_what_was_asked_for_or_refused() {
        let at = |name: &str, asked| below(Path::new(name), asked).map(|path| path.display().to_string());
        assert_eq!(at("app/x/y", "/var/app").as_deref(), Some("x/y"));
        assert_eq!(at("var/app/x", "/var/app").as_deref(), Some("x"));
        assert_eq!(at("./hosts", "/etc/hosts").as_deref(), Some(""));
        for bad in ["../x", "app/../../x", "other/x"] {
            assert_eq!(at(bad, "/var/app"), None, "{bad}");
        }
    }

    #[test]
    fn a_tree_comes_back_as_it_went_and_links_stay_out() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("sub")).unwrap();
        fs::write(source.join("sub/file"), "content").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink("/etc/passwd", source.join("link")).unwrap();
        let packed = pack(&source, "/tmp/there").unwrap();
        let back = dir.path().join("back");
        unpack(packed, "/tmp/there", &back).unwrap();
        assert_eq!(fs::read_to_string(back.join("sub/file")).unwrap(), "content");
        assert!(!back.join("link").exists());
        // One file, into a directory and onto a name.
        for (target, expected) in [(back.clone(), back.join("file")), (back.join("new"), back.join("new"))] {
            let packed = pack(&source.join("sub/file"), "/tmp/file").unwrap();
            unpack(packed, "/tmp/file", &target).unwrap();
            assert_eq!(fs::read_to_string(expected).unwrap(), "content");
        }
    }

    #[test]
    fn a_place_in_a_process_has_an_absolute_path() {
        assert!(matches!(Place::parse("web-1:/tmp/x"), Ok(Place::Process("web-1", "/tmp/x"))));
        assert!(matches!(Place::parse("./x"), Ok(Place::Here("./x"))));
        assert!(Place::parse("web-1:x").is_err());
    }
}
