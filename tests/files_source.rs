//! The files source against real files, links and directories, and the operating system's own events.
//!
//! No test sleeps: each waits for what it claims. That nothing happens is shown by a change behind it
//! that is told first.

#![allow(clippy::unwrap_used, reason = "a test that can't go on says where it stopped")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tidegate::kinds::Rules;
use tidegate::model::{Event, ProblemKind};
use tidegate::owner::Burst;
use tidegate::sources::files::{self, Options, Report, SOURCES};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How long a wait may take before the test fails: a limit, not a pause.
const LIMIT: Duration = Duration::from_secs(20);

/// A server as one line of JSON; `name` or `name=port`.
fn line(word: &str) -> String {
    let (name, port) = word.split_once('=').unwrap_or((word, "7000"));
    let metadata =
        format!(r#"{{"name":"{name}","annotations":{{"tidegate.dev/host":"<name>.example.com"}}}}"#);
    let spec = format!(r#"{{"address":"10.0.0.1","port":{port}}}"#);
    format!(r#"{{"apiVersion":"tidegate.dev/v1","kind":"Server","metadata":{metadata},"spec":{spec}}}"#)
        + "\n"
}

fn lines(words: &str) -> String {
    words.split_whitespace().map(line).collect()
}

/// Servers as YAML documents: JSON is YAML, too.
fn documents(words: &str) -> String {
    words.split_whitespace().flat_map(|word| ["---\n".to_owned(), line(word)]).collect()
}

/// A running source over `fleet` in a directory of its own.
struct Running {
    root: TempDir,
    events: mpsc::Receiver<Burst>,
    report: watch::Receiver<Report>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Over these files; without any, the directory is not there yet.
    fn start(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::create_dir_all(root.path().join("fleet")).unwrap();
            fs::write(root.path().join("fleet").join(name), text).unwrap();
        }
        Self::over(root)
    }

    fn over(root: TempDir) -> Self {
        let dir = root.path().join("fleet");
        Self::at(root, dir)
    }

    /// Over `dir`, which is `fleet` in `root` by another name.
    fn at(root: TempDir, dir: PathBuf) -> Self {
        let (sender, events) = mpsc::channel(16);
        let (reporter, report) = watch::channel(Report::default());
        let options = Options { dir, rules: Rules::default(), max_file_bytes: 1 << 20 };
        let task = tokio::spawn(files::run(options, sender, reporter));
        Self { root, events, report, task }
    }

    /// Started and listed; the servers are as `words`.
    async fn listed(files: &[(&str, &str)], words: &str) -> Self {
        let mut running = Self::start(files);
        assert_eq!(running.next().await, format!("reset {words}"));
        running
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("fleet").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The next batch: `+name=port`, `-name`, sorted.
    async fn next(&mut self) -> String {
        let batch = tokio::time::timeout(LIMIT, self.events.recv()).await;
        let batch =
            batch.unwrap_or_else(|_| panic!("nothing was told; {:#?}", self.report.borrow())).unwrap();
        let mut words = Vec::new();
        let mut reset = "";
        // All sources doubt together.
        let mut doubts = false;
        for event in batch.events {
            match event {
                Event::Upsert(server) => words.push(format!("+{}", shown(&server))),
                Event::Remove(id) => words.push(format!("-{}", id.name())),
                Event::Doubt { doubts: true, .. } if doubts => {}
                Event::Doubt { doubts: true, .. } => {
                    doubts = true;
                    words.push("doubt".into());
                }
                // The first listing says so, too.
                Event::Doubt { doubts: false, .. } => {}
                Event::Reset { source, servers } => {
                    assert!(SOURCES.contains(&source));
                    reset = "reset ";
                    words.extend(servers.iter().map(shown));
                }
            }
        }
        words.sort();
        format!("{reset}{}", words.join(" "))
    }

    async fn reported(&mut self, what: &str, is_it: impl FnMut(&Report) -> bool) -> Report {
        let found = tokio::time::timeout(LIMIT, self.report.wait_for(is_it))
            .await
            .map(|report| report.unwrap().clone());
        found.unwrap_or_else(|_| panic!("not reported: {what}; {:#?}", self.report.borrow()))
    }

    async fn problem(&mut self, part: &str) -> Report {
        self.reported(part, |report| report.problems.iter().any(|problem| problem.to_string().contains(part)))
            .await
    }

    /// It says now that it waits with removals.
    fn is_settling(&self) -> bool {
        self.report.borrow().held.as_ref().is_some_and(|why| why.contains("what it lacks is kept"))
    }

    async fn mended(&mut self) -> Report {
        self.reported("all is mended", |report| report.problems.is_empty() && report.held.is_none()).await
    }
}

fn shown(server: &std::sync::Arc<tidegate::model::Server>) -> String {
    let port = server.desired.endpoint.map_or_else(|| "none".into(), |endpoint| endpoint.port().to_string());
    format!("{}={port}", server.id.name())
}

#[tokio::test]
async fn all_files_are_listed_at_once_and_changes_follow() {
    let files = [
        ("a.yaml", &*documents("a b")),
        ("b.json", &line("c")),
        ("c.ndjson", &lines("d e")),
        ("readme.md", "x"),
        (".d.yaml", "x: ["),
    ];
    let mut running = Running::listed(&files, "a=7000 b=7000 c=7000 d=7000 e=7000").await;
    let report = running.reported("listed", |report| report.listed).await;
    assert_eq!((report.files, report.reads, &report.problems[..], &report.held), (3, 3, &[][..], &None));
    running.write(".tmp", &line("c=1"));
    fs::rename(running.path(".tmp"), running.path("b.json")).unwrap();
    assert_eq!(running.next().await, "+c=1");
    let report = running.reported("one more read", |report| report.reads > 3).await;
    assert_eq!(report.reads, 4, "a changed file is read again alone");
    running.write("d.yml", &documents("f"));
    assert_eq!(running.next().await, "+f=7000");
    fs::remove_file(running.path("a.yaml")).unwrap();
    assert_eq!(running.next().await, "-a -b");
    let Running { events, task, root: _root, .. } = running;
    drop(events);
    tokio::time::timeout(LIMIT, task).await.expect("it ends with its reader").unwrap().unwrap();
}

#[tokio::test]
async fn an_empty_directory_is_listed_too() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("fleet")).unwrap();
    let mut running = Running::over(root);
    assert_eq!(running.next().await, "reset ");
    running.write("a.ndjson", &lines("a"));
    assert_eq!(running.next().await, "+a=7000");
}

#[tokio::test]
async fn one_of_a_thousand_is_one_upsert() {
    let all: Vec<_> = (0..1000).map(|at| format!("s{at}=1")).collect();
    let mut running = Running::start(&[("f.ndjson", &lines(&all.join(" ")))]);
    assert_eq!(running.next().await.split(' ').count(), 1001);
    let mut other = all.clone();
    other[500] = "s500=2".into();
    running.write("f.ndjson", &lines(&other.join(" ")));
    assert_eq!(running.next().await, "+s500=2");
}

#[tokio::test]
async fn an_editor_may_replace_a_file_by_renaming() {
    let mut running = Running::listed(&[("a.yaml", &documents("a b"))], "a=7000 b=7000").await;
    // Most editors: a new file over the old one.
    running.write(".a.yaml.tmp", &documents("a=1 b"));
    fs::rename(running.path(".a.yaml.tmp"), running.path("a.yaml")).unwrap();
    assert_eq!(running.next().await, "+a=1");
    // vim: the old one away, then a new one. Nothing may be removed in between.
    fs::rename(running.path("a.yaml"), running.path("a.yaml~")).unwrap();
    running.write("a.yaml", &documents("a=2 b"));
    assert_eq!(running.next().await, "+a=2");
}

#[tokio::test]
async fn a_file_renamed_away_takes_its_servers_and_one_renamed_within_does_not() {
    let mut running = Running::listed(
        &[("a.yaml", &documents("a b")), ("z.yaml", &documents("z"))],
        "a=7000 b=7000 z=7000",
    )
    .await;
    fs::rename(running.path("a.yaml"), running.path("b.yaml")).unwrap();
    let report = running.reported("read anew", |report| report.reads == 3 && report.files == 2).await;
    assert_eq!(report.problems, []);
    fs::rename(running.path("z.yaml"), running.root.path().join("z.yaml")).unwrap();
    assert_eq!(running.next().await, "-z");
}

#[tokio::test]
async fn a_half_written_file_is_healed_by_its_other_half() {
    let mut running = Running::listed(&[("f.ndjson", &lines("a b c"))], "a=7000 b=7000 c=7000").await;
    let text = lines("a=1 b=2 c=3");
    let middle = text.len() / 2;
    let mut file = fs::File::create(running.path("f.ndjson")).unwrap();
    std::io::Write::write_all(&mut file, &text.as_bytes()[..middle]).unwrap();
    assert_eq!(running.next().await, "+a=1", "an open file is read when it was quiet");
    let report = running.problem("f.ndjson:2").await;
    assert_eq!(report.held.unwrap(), "f.ndjson is not whole: 2 objects of it are kept as they were");
    std::io::Write::write_all(&mut file, &text.as_bytes()[middle..]).unwrap();
    drop(file);
    assert_eq!(running.next().await, "+b=2 +c=3");
    running.mended().await;
}

#[tokio::test]
async fn a_file_that_is_still_open_loses_nothing() {
    let mut running = Running::listed(&[("f.ndjson", &lines("a b c"))], "a=7000 b=7000 c=7000").await;
    let mut file = fs::File::create(running.path("f.ndjson")).unwrap();
    // Every line is whole, and so is the file as far as anybody can see.
    std::io::Write::write_all(&mut file, lines("a=1").as_bytes()).unwrap();
    assert_eq!(running.next().await, "+a=1");
    running.reported("it is not whole", |report| report.held.is_some()).await;
    std::io::Write::write_all(&mut file, lines("b=2").as_bytes()).unwrap();
    assert_eq!(running.next().await, "+b=2");
    drop(file);
    assert_eq!(running.next().await, "-c");
    running.mended().await;
}

#[tokio::test]
async fn a_file_that_is_never_closed_is_believed_in_the_end() {
    let mut running = Running::listed(&[("f.ndjson", &lines("a b"))], "a=7000 b=7000").await;
    let mut file = fs::File::create(running.path("f.ndjson")).unwrap();
    std::io::Write::write_all(&mut file, lines("a").as_bytes()).unwrap();
    assert_eq!(running.next().await, "-b");
}

#[tokio::test]
async fn an_emptied_file_keeps_its_servers() {
    let mut running = Running::listed(&[("a.yaml", &documents("a"))], "a=7000").await;
    running.write("a.yaml", "");
    running.problem("a.yaml: is empty, as if half-written; its 1 objects are kept").await;
    running.write("a.yaml", &documents("b"));
    assert_eq!(running.next().await, "+b=7000 -a");
    running.mended().await;
}

#[tokio::test]
async fn a_bad_document_holds_removals_until_it_is_mended() {
    let mut running = Running::listed(&[("a.yaml", &documents("a b c"))], "a=7000 b=7000 c=7000").await;
    running.write("a.yaml", &format!("{}---\nx: [\n{}", documents("a=1"), documents("d")));
    assert_eq!(running.next().await, "+a=1 +d=7000");
    let report = running.problem("a.yaml:4").await;
    assert_eq!(report.problems[0].kind, ProblemKind::Unparsable);
    running.write("a.yaml", &documents("a=1 d"));
    assert_eq!(running.next().await, "-b -c");
    running.mended().await;
}

#[tokio::test]
async fn a_directory_that_vanishes_keeps_its_servers() {
    let mut running = Running::listed(&[("a.yaml", &documents("a b"))], "a=7000 b=7000").await;
    fs::remove_dir_all(running.path("")).unwrap();
    let report = running.reported("gone", |report| report.held.is_some()).await;
    assert!(report.held.unwrap().contains("2 objects are kept") && report.listed);
    // Back, but empty: not believed.
    fs::create_dir(running.path("")).unwrap();
    let report = running
        .reported("empty", |report| report.held.as_ref().is_some_and(|why| why.contains("came back empty")))
        .await;
    assert!(
        report
            .held
            .unwrap()
            .ends_with("came back empty; holding 2 objects; add a file, or restart to accept it")
    );
    // What somebody begins to put there counts; that it lacks something, only when he has done.
    running.write("a.yaml", &documents("b=1 c"));
    assert_eq!(running.next().await, "+b=1 +c=7000");
    assert_eq!(running.next().await, "-a");
    running.mended().await;
}

#[tokio::test]
async fn a_directory_that_is_replaced_is_read_anew() {
    let mut running =
        Running::listed(&[("a.yaml", &documents("a")), ("b.yaml", &documents("b"))], "a=7000 b=7000").await;
    let other = running.root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("a.yaml"), documents("a=1")).unwrap();
    fs::rename(running.path(""), running.root.path().join("old")).unwrap();
    running.reported("gone", |report| report.held.is_some()).await;
    fs::rename(&other, running.path("")).unwrap();
    assert_eq!(running.next().await, "+a=1");
    assert_eq!(running.next().await, "-b");
    running.write("a.yaml", &documents("a=2"));
    assert_eq!(running.next().await, "+a=2", "the new directory is watched");
}

#[tokio::test]
async fn what_a_directory_has_when_it_is_back_counts_at_once_and_what_it_lacks_when_it_has_settled() {
    let files = [("a.yaml", &*documents("a x")), ("b.yaml", &documents("b"))];
    let mut running = Running::listed(&files, "a=7000 b=7000 x=7000").await;
    let old = running.root.path().join("old");
    fs::rename(running.path(""), &old).unwrap();
    running.reported("gone", |report| report.held.is_some()).await;
    fs::remove_file(old.join("b.yaml")).unwrap();
    fs::write(old.join("a.yaml"), documents("a=1")).unwrap();
    fs::write(old.join("c.yaml"), documents("c")).unwrap();
    fs::rename(&old, running.path("")).unwrap();
    assert_eq!(running.next().await, "+a=1");
    assert_eq!(running.next().await, "+c=7000");
    assert!(running.is_settling());
    // Somebody fills it.
    running.write("d.yaml", &documents("d"));
    assert_eq!(running.next().await, "+d=7000");
    fs::remove_file(running.path("c.yaml")).unwrap();
    running.write("c2.yaml", &documents("c2"));
    assert_eq!(running.next().await, "+c2=7000");
    assert!(running.is_settling());
    let mut gone = vec![running.next().await, running.next().await, running.next().await];
    gone.sort();
    assert_eq!(gone, ["-b", "-c", "-x"]);
    assert_eq!(running.mended().await.files, 3);
}

#[tokio::test]
async fn a_directory_that_goes_again_before_it_has_settled_forgets_nothing() {
    let mut running = Running::listed(&[("a.yaml", &documents("a x"))], "a=7000 x=7000").await;
    let old = running.root.path().join("old");
    fs::rename(running.path(""), &old).unwrap();
    running.reported("gone", |report| report.held.is_some()).await;
    fs::write(old.join("a.yaml"), documents("a=1")).unwrap();
    fs::rename(&old, running.path("")).unwrap();
    assert_eq!(running.next().await, "+a=1");
    assert!(running.is_settling());
    fs::rename(running.path(""), &old).unwrap();
    running
        .reported("gone again", |report| report.held.as_ref().is_some_and(|why| why.contains("is not there")))
        .await;
    fs::rename(&old, running.path("")).unwrap();
    assert_eq!(running.next().await, "-x");
    running.mended().await;
}

#[tokio::test]
async fn a_directory_that_is_named_from_here_is_seen_to_go() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("fleet")).unwrap();
    fs::write(root.path().join("fleet/a.yaml"), documents("a")).unwrap();
    let up: PathBuf = std::env::current_dir().unwrap().iter().skip(1).map(|_| "..").collect();
    let dir = up.join(root.path().join("fleet").strip_prefix("/").unwrap());
    assert!(dir.is_relative());
    let mut running = Running::at(root, dir);
    assert_eq!(running.next().await, "reset a=7000");
    // The same name, and on many file systems the same number: only the event tells that it is another.
    fs::remove_dir_all(running.path("")).unwrap();
    fs::create_dir(running.path("")).unwrap();
    running
        .reported("empty", |report| report.held.as_ref().is_some_and(|why| why.contains("came back empty")))
        .await;
    running.write("a.yaml", &documents("a=1"));
    assert_eq!(running.next().await, "+a=1");
    running.mended().await;
}

#[tokio::test]
async fn a_directory_that_comes_late_is_waited_for() {
    let mut running = Running::start(&[]);
    let report = running.problem("looked for again every half second").await;
    assert!(!report.listed);
    fs::create_dir(running.path("")).unwrap();
    running.write("a.yaml", &documents("a"));
    assert_eq!(running.next().await, "reset a=7000");
    running.mended().await;
}

#[tokio::test]
async fn a_file_that_is_too_large_keeps_what_it_held() {
    let mut running = Running::listed(&[("a.ndjson", &lines("a"))], "a=7000").await;
    running.write("a.ndjson", &"x".repeat((1 << 20) + 1));
    let report = running.problem("a.ndjson: has 1048577 bytes; at most 1048576 are read").await;
    assert_eq!((report.problems[0].kind, report.reads), (ProblemKind::TooLarge, 1), "it is not even read");
    running.write("a.ndjson", &lines("a=1"));
    assert_eq!(running.next().await, "+a=1");
    running.mended().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_config_map_swaps_all_its_files_at_once() {
    use std::os::unix::fs::symlink;
    let root = tempfile::tempdir().unwrap();
    let fleet = root.path().join("fleet");
    let fill = |version: &str, words: &str| {
        fs::create_dir_all(fleet.join(version)).unwrap();
        fs::write(fleet.join(version).join("a.yaml"), documents(words)).unwrap();
        fs::write(fleet.join(version).join("b.yaml"), documents("b")).unwrap();
    };
    fill("..one", "a=1");
    symlink("..one", fleet.join("..data")).unwrap();
    symlink("..data/a.yaml", fleet.join("a.yaml")).unwrap();
    symlink("..data/b.yaml", fleet.join("b.yaml")).unwrap();
    let mut running = Running::over(root);
    assert_eq!(running.next().await, "reset a=1 b=7000");
    fill("..two", "a=2");
    symlink("..two", running.path("..data_tmp")).unwrap();
    fs::rename(running.path("..data_tmp"), running.path("..data")).unwrap();
    fs::remove_dir_all(running.path("..one")).unwrap();
    assert_eq!(running.next().await, "+a=2");
    assert_eq!(running.mended().await.files, 2);
}

/// A pod of the set `lobby` as kubectl prints it, on one line; `name` or `name=last number of its address`.
fn pod(word: &str) -> String {
    let (name, last) = word.split_once('=').unwrap_or((word, "1"));
    let metadata = format!(r#"{{"name":"{name}","labels":{{"game.kruise.io/owner-gss":"lobby"}}}}"#);
    let spec = r#"{"containers":[{"name":"game","ports":[{"containerPort":7000}]}]}"#;
    let status = format!(
        r#"{{"phase":"Running","podIP":"10.0.0.{last}","conditions":[{{"type":"Ready","status":"True"}}],"containerStatuses":[{{"name":"game","ready":true}}]}}"#
    );
    format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{metadata},"spec":{spec},"status":{status}}}"#)
}

/// The set, whose annotation asks for routes at port `port`.
fn set(port: &str) -> String {
    let annotations = format!(r#"{{"tidegate.dev/host":"<name>.example.com","tidegate.dev/port":"{port}"}}"#);
    format!(
        r#"{{"apiVersion":"game.kruise.io/v1alpha1","kind":"GameServerSet","metadata":{{"name":"lobby","annotations":{annotations}}},"spec":{{"replicas":3}}}}"#
    )
}

#[tokio::test]
async fn a_dump_of_a_cluster_is_watched_like_any_file() {
    let dump =
        |objects: &[String]| format!("apiVersion: v1\nkind: List\nitems:\n- {}\n", objects.join("\n- "));
    let all = [pod("lobby-0"), pod("lobby-1"), set("7000")];
    let files = [("dump.yaml", &*dump(&all)), ("own.ndjson", &lines("own"))];
    let mut running = Running::listed(&files, "lobby-0=7000 lobby-1=7000 own=7000").await;
    running.write("dump.yaml", &dump(&[pod("lobby-0"), pod("lobby-1=2"), set("7000")]));
    assert_eq!(running.next().await, "+lobby-1=7000", "one pod, one upsert");
    // Half of it: nothing is taken away, and what is whole again is told.
    let text = dump(&[pod("lobby-0"), pod("lobby-1=3"), set("7000")]);
    running.write("dump.yaml", &text[..text.len() / 2]);
    running.problem("dump.yaml:").await;
    running.reported("held", |report| report.held.is_some()).await;
    running.write("dump.yaml", &text);
    assert_eq!(running.next().await, "+lobby-1=7000");
    running.mended().await;
    // The set has its say from any file; when it goes, nobody asks for routes any more.
    running.write("dump.yaml", &dump(&[pod("lobby-0"), pod("lobby-1=3")]));
    assert_eq!(running.next().await, "-lobby-0 -lobby-1");
    running.write("set.json", &set("7001"));
    assert_eq!(running.next().await, "+lobby-0=7001 +lobby-1=7001");
}

#[tokio::test]
async fn a_duplicate_takes_over_when_the_first_goes() {
    let mut running =
        Running::listed(&[("a.yaml", &documents("s=1")), ("b.yaml", &documents("s=2 t"))], "s=1 t=7000")
            .await;
    let report = running
        .problem("b.yaml:2: default/s stands in a.yaml:2 already; this one takes over when that goes")
        .await;
    assert_eq!(report.problems[0].kind, ProblemKind::Duplicate);
    fs::remove_file(running.path("a.yaml")).unwrap();
    assert_eq!(running.next().await, "+s=2");
    running.mended().await;
}

#[tokio::test]
async fn other_kinds_and_things_that_are_no_files_are_said() {
    let services =
        "kind: Service\napiVersion: v1\n---\nkind: Service\napiVersion: v1\n".to_owned() + &documents("a");
    let mut running = Running::listed(&[("a.yaml", &services)], "a=7000").await;
    let report = running.reported("a note", |report| !report.notes.is_empty()).await;
    assert_eq!(
        report.notes[0].to_string(),
        "a.yaml:1: left out, as nothing of them is read here: v1 Service"
    );
    assert_eq!((report.notes.len(), report.problems.len(), report.held), (1, 0, None));
    fs::create_dir(running.path("x.yaml")).unwrap();
    running.problem("x.yaml: is not a file").await;
    fs::remove_dir(running.path("x.yaml")).unwrap();
    running.mended().await;
}

#[cfg(unix)]
#[tokio::test]
async fn an_unreadable_file_keeps_what_it_held() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let mut running = Running::listed(&[("a.yaml", &documents("a"))], "a=7000").await;
    // A link to itself is unreadable even to root.
    symlink("b.yaml", running.path(".c.yaml")).unwrap();
    symlink("c.yaml", running.path("c.yaml")).unwrap();
    let report = running.problem("c.yaml: can't be read").await;
    assert_eq!(report.problems[0].kind, ProblemKind::Unreadable);
    assert_eq!(running.next().await, "doubt", "nobody knows what is in it");
    fs::remove_file(running.path("c.yaml")).unwrap();
    running.mended().await;
    assert_eq!(running.next().await, "", "the doubt went with it");
    // A link whose target went keeps what it held.
    fs::write(running.root.path().join("target"), documents("t")).unwrap();
    symlink("../target", running.path("t.yaml")).unwrap();
    assert_eq!(running.next().await, "+t=7000");
    fs::remove_file(running.root.path().join("target")).unwrap();
    fs::set_permissions(running.path("a.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(running.path("a.yaml")).is_ok() {
        // Root reads what nobody may: then the file has to go on being read.
        running.write("a.yaml", &documents("a=1"));
        assert_eq!(running.next().await, "+a=1");
    } else {
        running.problem("a.yaml: can't be read").await;
        fs::set_permissions(running.path("a.yaml"), fs::Permissions::from_mode(0o600)).unwrap();
        running
            .reported("a.yaml is mended", |report| !report.problems.iter().any(|p| p.field == "a.yaml"))
            .await;
    }
    // The next listing of all files sees the link that leads nowhere.
    running.problem("t.yaml: can't be read").await;
    assert!(running.events.is_empty());
}

#[tokio::test]
async fn any_bytes_may_come() {
    let seed =
        std::env::var("TIDEGATE_SEED").map_or_else(|_| fastrand::u64(..), |text| text.parse().unwrap());
    println!("TIDEGATE_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut running = Running::listed(&[("z.ndjson", &lines("z"))], "z=7000").await;
    for round in 0..20 {
        for name in ["a.yaml", "b.json", "c.ndjson"] {
            // A fleet file with some bytes replaced, cut or doubled.
            let mut bytes = documents("a b").into_bytes();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(0..bytes.len());
                match random.u8(0..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => bytes.truncate(at.max(1)),
                    _ => bytes.extend_from_within(at..),
                }
            }
            fs::write(running.path(name), bytes).unwrap();
        }
        // It still works: a change behind it arrives.
        running.write("z.ndjson", &lines(&format!("z={}", round + 1)));
        let sentinel = format!("+z={}", round + 1);
        while running.next().await != sentinel {}
    }
}

fn checked(files: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(root.path().join(name), text).unwrap();
    }
    let checked = files::read_paths(&[root.path().to_owned()], &Rules::default(), 3);
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let servers = checked
        .servers
        .iter()
        .map(|found| format!("{} {}", name(&found.file), shown(&found.server)))
        .collect();
    let prefix = format!("{}/", root.path().display());
    (servers, checked.problems.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect())
}

#[test]
fn paths_are_read_once_in_order() {
    let (servers, problems) =
        checked(&[("b.yaml", &documents("x s=2")), ("a.ndjson", &(lines("s=1") + "oops\n"))]);
    assert_eq!(servers, ["a.ndjson s=1", "b.yaml x=7000"]);
    assert_eq!(
        problems,
        [
            "a.ndjson:2: expected value at column 1",
            "b.yaml:4: default/s stands in a.ndjson:1 already; this one takes over when that goes",
        ]
    );
    let nowhere = files::read_paths(&["/nowhere/fleet.yaml".into()], &Rules::default(), 3);
    assert_eq!(nowhere.problems[0].to_string(), "/nowhere/fleet.yaml: does not exist");
    assert_eq!(checked(&[]).1.len(), 1, "a directory without a fleet file is said");
}
