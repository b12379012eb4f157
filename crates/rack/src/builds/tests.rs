//! What a build makes of honest sources, and of others.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use futures_util::StreamExt;
use proptest::prelude::*;
use tar::{EntryType, Header};

use super::*;
use crate::logs::{LogLimits, LogQuery};

const MANIFEST: &str = "services:\n  web:\n    command: run me\n    port: 3000\n";

/// Writes archives that no honest tool would.
#[derive(Default)]
struct Source(Vec<u8>);

impl Source {
    fn with_manifest() -> Self {
        Self::default().file("convox.yml", MANIFEST)
    }

    fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", 0o644, content.as_bytes())
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), 0o777, b"")
    }

    fn gzip(self) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.0).unwrap();
        encoder.write_all(&[0; 1024]).unwrap();
        encoder.finish().unwrap()
    }
}

struct Bench {
    dir: tempfile::TempDir,
    logs: LogStore,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let logs = LogStore::open(&dir.path().join("logs"), LogLimits::default()).unwrap();
        Self { dir, logs }
    }

    fn builder(&self, limits: BuildLimits) -> Builder {
        Builder::new(&self.dir.path().join("builds"), self.logs.clone(), limits)
    }

    async fn build(&self, archive: &[u8]) -> Result<BuildOutput, BuildError> {
        self.build_with(archive, BuildLimits::default(), None).await
    }

    async fn build_with(&self, archive: &[u8], limits: BuildLimits, manifest: Option<&str>) -> Result<BuildOutput, BuildError> {
        let file = self.dir.path().join("source.tgz");
        std::fs::write(&file, archive).unwrap();
        let request = BuildRequest {
            id: "B1".into(),
            app: "app".into(),
            archive: file,
            manifest: manifest.map(Into::into),
            ..BuildRequest::default()
        };
        self.builder(limits).build(request).await
    }

    async fn refusal(&self, source: Source) -> String {
        let reason = self.build(&source.gzip()).await.unwrap_err().reason;
        assert!(!self.dir.path().join("builds/app/B1").exists(), "something was left");
        assert!(!self.dir.path().join("escaped").exists(), "it escaped");
        reason
    }

    async fn log(&self) -> Vec<String> {
        let query = LogQuery { streams: vec!["build/B1".into()], ..LogQuery::default() };
        self.logs.query(&log_of("app"), query).map(|line| line.message).collect().await
    }
}

#[tokio::test]
async fn an_honest_source_is_unpacked_and_protected() {
    let bench = Bench::new();
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(150));
    let source = Source::with_manifest()
        .entry(EntryType::Directory, b"./bin/", b"", 0o755, b"")
        .entry(EntryType::Regular, b"./bin/tool", b"", 0o6755, b"#!/bin/sh\n")
        .symlink("bin/alias", "tool")
        .symlink("bin/up", "../convox.yml")
        .entry(EntryType::Link, b"bin/hard", b"bin/tool", 0o644, b"")
        .entry(EntryType::GNULongName, b"././@LongLink", b"", 0o644, format!("{long}\0").as_bytes())
        .file("cut", "long")
        .entry(EntryType::XHeader, b"pax", b"", 0o644, "18 path=\u{e9}t\u{e9}.txt\n".as_bytes())
        .file("ete.txt", "summer");
    let output = bench.build(&source.gzip()).await.unwrap();
    assert_eq!(output.manifest_text, MANIFEST);
    let read = |path: &str| std::fs::read_to_string(output.dir.join(path)).unwrap();
    assert_eq!((read("bin/alias"), read("bin/hard"), read("bin/up")), ("#!/bin/sh\n".into(), "#!/bin/sh\n".into(), MANIFEST.into()));
    assert_eq!((read(&long), read("été.txt")), ("long".into(), "summer".into()));
    let mode = |path: &str| std::fs::metadata(output.dir.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin/tool"), mode("convox.yml"), mode("bin"), mode(".")), (0o555, 0o444, 0o555, 0o555));
    let log = bench.log().await.join("\n");
    assert!(log.contains("Service web runs: sh -c run me") && log.ends_with("Build complete"), "{log}");
    let builder = bench.builder(BuildLimits::default());
    assert_eq!(builder.source_dir("app", "B1"), output.dir);
    builder.remove("app", "B1").await.unwrap();
    builder.remove("app", "B1").await.unwrap();
    assert!(!output.dir.exists());
    builder.remove_app("app").await.unwrap();
}

#[tokio::test]
async fn nothing_is_written_outside_the_source() {
    let bench = Bench::new();
    let base = Source::with_manifest;
    let cases = [
        (base().file("../../../escaped", "x"), "leads out of the source by `..`"),
        (base().file("a/../../../../escaped", "x"), "leads out of the source by `..`"),
        (base().file("/tmp/escaped", "x"), "has an absolute path"),
        (base().symlink("l", "/etc"), "a symbolic link to an absolute path"),
        (base().symlink("l", "../escaped"), "leads out of the source"),
        (base().symlink("a/b", "../../x"), "leads out of the source"),
        (base().symlink("a", "b/../../../escaped"), "goes down and up again"),
        (base().symlink("a", ".").symlink("a/b", ".."), "lies behind a link or a file"),
        (base().symlink("d", "e").file("d/x", "x"), "lies behind a link or a file"),
        (base().entry(EntryType::Link, b"h", b"../../escaped", 0o644, b""), "leads out of the source by `..`"),
        (base().entry(EntryType::Link, b"h", b"/etc/passwd", 0o644, b""), "has an absolute path"),
        (base().symlink("s", "convox.yml").entry(EntryType::Link, b"h", b"s", 0o644, b""), "lies behind a link or a file"),
        (base().entry(EntryType::Link, b"h", b"later", 0o644, b""), "not in the source before it"),
        (base().entry(EntryType::Char, b"c", b"", 0o644, b""), "is neither a file, a directory nor a link"),
        (base().entry(EntryType::Block, b"c", b"", 0o644, b""), "is neither a file, a directory nor a link"),
        (base().entry(EntryType::Fifo, b"c", b"", 0o644, b""), "is neither a file, a directory nor a link"),
        (base().entry(EntryType::GNUSparse, b"c", b"", 0o644, b""), "is neither a file, a directory nor a link"),
        (base().entry(EntryType::Directory, b"d", b"", 0o755, b"").file("d", "x"), "would replace a directory"),
        (base().file("f", "x").file("f/g", "x"), "lies behind a link or a file"),
        (base().entry(EntryType::XHeader, b"p", b"", 0o644, b"19 path=../escaped\n").file("x", "x"), "leads out of the source by `..`"),
        (base().entry(EntryType::XHeader, b"p", b"", 0o644, b"99 path=x\n").file("x", "x"), "a malformed extension record"),
        (base().entry(EntryType::XHeader, b"p", b"", 0o644, b"22 GNU.sparse.major=1\n").file("x", "x"), "a sparse file"),
        (
            base().entry(EntryType::GNULongName, b"l", b"", 0o644, "d/".repeat(70).as_bytes()).file("x", "x"),
            "lies deeper than 64 directories",
        ),
    ];
    for (source, expected) in cases {
        let reason = bench.refusal(source).await;
        assert!(reason.contains(expected), "{reason} is not {expected}");
    }
}

#[tokio::test]
async fn a_later_entry_replaces_an_earlier_one_and_not_what_it_points_to() {
    let bench = Bench::new();
    let source = Source::with_manifest().file("real", "1").symlink("x", "real").file("x", "2").file("x", "3");
    let output = bench.build(&source.gzip()).await.unwrap();
    let read = |path: &str| std::fs::read_to_string(output.dir.join(path)).unwrap();
    assert_eq!((read("real"), read("x")), ("1".into(), "3".into()));
}

#[tokio::test]
async fn a_small_archive_cannot_fill_the_disk() {
    let bench = Bench::new();
    let limits = BuildLimits { bytes: 1 << 20, entries: 100 };
    let bomb = Source::with_manifest().entry(EntryType::Regular, b"zeros", b"", 0o644, &vec![0; 8 << 20]).gzip();
    assert!(bomb.len() < 100_000);
    let reason = bench.build_with(&bomb, limits, None).await.unwrap_err().reason;
    assert!(reason.contains("unpacks to more than 1 MB"), "{reason}");
    let many = (0..200).fold(Source::with_manifest(), |source, index| source.file(&format!("f{index}"), "")).gzip();
    let reason = bench.build_with(&many, limits, None).await.unwrap_err().reason;
    assert!(reason.contains("more than 100 entries"), "{reason}");
    let long = Source::with_manifest().entry(EntryType::GNULongName, b"l", b"", 0o644, &vec![b'x'; 100_000]).gzip();
    assert!(bench.build(&long).await.unwrap_err().reason.contains("too long"));
    assert!(!bench.dir.path().join("builds/app/B1").exists());
}

#[tokio::test]
async fn what_is_no_archive_is_said_to_be_none() {
    let bench = Bench::new();
    for bytes in [&b""[..], b"not gzip", &Source::with_manifest().file("x", &"y".repeat(5000)).gzip()[..60]] {
        let reason = bench.build(bytes).await.unwrap_err().reason;
        assert!(reason.contains("not a gzip-compressed tar archive") || reason.contains("there is no convox.yml"), "{reason}");
    }
    assert!(bench.log().await.iter().any(|line| line.starts_with("ERROR: ")));
}

#[tokio::test]
async fn a_bad_manifest_fails_the_build_with_its_place() {
    let bench = Bench::new();
    let reason = bench.refusal(Source::default().file("convox.yml", "services:\n  web:\n    prot: 1\n")).await;
    assert_eq!(reason, "convox.yml: line 3, column 5: unknown key services.web.prot; did you mean port?");
    assert!(bench.refusal(Source::default().file("other", "")).await.contains("there is no convox.yml in the source"));
    let dir = Source::default().file("convox.yml", "services:\n  web:\n    build: nowhere\n    command: x\n");
    assert!(bench.refusal(dir).await.contains("there is no directory \"nowhere\" in the source"));
    let image = Source::default().file("convox.yml", "services:\n  web:\n    image: nginx\n");
    assert!(bench.refusal(image).await.contains("runs the image nginx"));
    let latin = Source::default().entry(EntryType::Regular, b"convox.yml", b"", 0o644, b"\xff");
    assert!(bench.refusal(latin).await.contains("not UTF-8"));
}

#[tokio::test]
async fn another_manifest_can_be_named_but_not_one_outside() {
    let bench = Bench::new();
    let source = || Source::default().file("deploy/other.yml", MANIFEST).gzip();
    let build = |name: &'static str| {
        let bench = &bench;
        async move { bench.build_with(&source(), BuildLimits::default(), Some(name)).await }
    };
    assert!(build("deploy/other.yml").await.is_ok());
    for name in ["../source.tgz", "/etc/passwd", "deploy"] {
        assert!(build(name).await.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_dockerfile_is_one_of_the_source_and_of_a_readable_size() {
    let bench = Bench::new();
    std::fs::write(bench.dir.path().join("outside"), "FROM scratch\nCMD [\"stolen\"]\n").unwrap();
    let named =
        |name: &str| Source::default().file("convox.yml", &format!("services:\n  web:\n    build: {{path: ., manifest: {name:?}}}\n"));
    for name in ["../../../../outside", "../../../../../../../../../../dev/zero", "/dev/zero", "/etc/passwd"] {
        let reason = bench.refusal(named(name)).await;
        assert!(reason.contains("build.manifest") && reason.contains("not the name of a file in the source"), "{reason}");
    }
    // Inside of the source, and for an engine, which gets a part of it only, outside.
    let reason = bench.refusal(named("Dockerfile").file("real", "FROM scratch\nCMD x\n").symlink("Dockerfile", "real")).await;
    assert!(reason.contains("lies behind a link"), "{reason}");
    let reason = bench.refusal(named("Dockerfile").file("Dockerfile", &"#".repeat(1_048_577))).await;
    assert!(reason.contains("larger than 1024 KB"), "{reason}");
}

#[tokio::test]
async fn a_cancelled_build_ends_and_leaves_nothing() {
    let bench = Bench::new();
    let file = bench.dir.path().join("source.tgz");
    // More than can be unpacked before it is cancelled: 128 MB of zeros, in pieces.
    let zeros = vec![0; 1 << 20];
    let large = (0..128).fold(Source::with_manifest(), |source, index| {
        source.entry(EntryType::Regular, format!("f{index}").as_bytes(), b"", 0o644, &zeros)
    });
    std::fs::write(&file, large.gzip()).unwrap();
    let builder = bench.builder(BuildLimits::default());
    let request = BuildRequest { id: "B1".into(), app: "app".into(), archive: file, ..BuildRequest::default() };
    let (outcome, cancelled) = tokio::join!(builder.build(request), async {
        while !bench.dir.path().join("builds/app/B1/unpacking/f0").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        builder.cancel("app").await
    });
    assert_eq!((outcome.unwrap_err().reason.as_str(), cancelled), ("it was cancelled", 1));
    assert!(!bench.dir.path().join("builds/app/B1").exists());
    assert_eq!(builder.cancel("app").await, 0);
}

#[tokio::test]
async fn names_from_outside_lead_nowhere_else() {
    let bench = Bench::new();
    let builder = bench.builder(BuildLimits::default());
    for (app, id) in [("..", "B1"), ("app", ".."), ("app", "a/b"), ("", "B1"), ("app", "")] {
        assert!(builder.remove(app, id).await.is_err(), "{app} {id}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_the_paths_nothing_appears_outside(entries in proptest::collection::vec(
        ("[a-c./]{1,12}", "[a-c./]{1,12}", 0_u8..4), 1..12,
    )) {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("x/y/z");
        std::fs::create_dir_all(&inside).unwrap();
        let mut source = Source::default();
        for (path, link, kind) in &entries {
            let kind = [EntryType::Regular, EntryType::Directory, EntryType::Symlink, EntryType::Link][usize::from(*kind)];
            source = source.entry(kind, path.as_bytes(), link.as_bytes(), 0o644, b"");
        }
        let archive = dir.path().join("source.tgz");
        std::fs::write(&archive, source.gzip()).unwrap();
        let _ = unpack::unpack(&archive, &inside, BuildLimits::default(), &CancellationToken::new());
        let names = |dir: &Path| -> Vec<String> {
            let mut names: Vec<String> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        prop_assert_eq!(names(dir.path()), ["source.tgz", "x"]);
        prop_assert_eq!(names(&dir.path().join("x")), ["y"]);
        prop_assert_eq!(names(&dir.path().join("x/y")), ["z"]);
        // No link in there leads out, through however many others.
        let root = inside.canonicalize().unwrap();
        let mut left = vec![root.clone()];
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                if let Ok(real) = entry.path().canonicalize() {
                    prop_assert!(real.starts_with(&root), "{real:?}");
                }
                if entry.file_type().unwrap().is_dir() {
                    left.push(entry.path());
                }
            }
        }
    }
}
