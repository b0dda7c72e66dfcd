//! Game servers in the files of a directory. A file is written whole, once for all that changes in it, beside itself
//! and then into its place, when what it is read to differs by what was wished and by nothing else.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::Read;
use super::members::{self, Raw, text};
use crate::edit::{self, Edit, Identity};
use crate::kinds::{Rules, Sources};
use crate::plan::{Change, Member};
use crate::sources::files;

const BOM: &str = "\u{feff}";

/// A fleet directory.
#[derive(Clone)]
pub(super) struct Files {
    pub(super) dir: PathBuf,
    pub(super) rules: Rules,
    pub(super) max_file_bytes: u64,
}

/// All that changes in one file.
#[derive(Clone)]
struct Batch {
    file: PathBuf,
    edits: Vec<Edit>,
    /// What each edit finds there.
    olds: Vec<Option<String>>,
    /// The place of each edit among all changes.
    changes: Vec<usize>,
}

impl Files {
    pub(super) async fn read(&self) -> anyhow::Result<Read> {
        let files = self.clone();
        blocking(move || files.read_now()).await
    }

    fn read_now(&self) -> anyhow::Result<Read> {
        let found = files::raw_fleet(&self.dir, &self.rules, self.max_file_bytes).with_context(|| {
            format!("--fleet {}: expected a directory of fleet files, or --kube", self.dir.display())
        })?;
        let problems = found.problems.iter().map(ToString::to_string).collect();
        let raws = found.objects.into_iter().map(|raw| {
            let at = Some(format!("{}:{}", raw.file.display(), raw.place));
            Raw { value: raw.value, read: raw.read, at }
        });
        let sources = Sources { okg: files::OKG, agones: files::AGONES };
        let (found, left) = members::members(raws.collect(), &self.rules, sources);
        let members = found.into_iter().map(|found| found.member).collect();
        let problems: Vec<String> = problems;
        Ok(Read { members, problems: [problems, left].concat() })
    }

    /// The file and line of each change.
    pub(super) async fn places(
        &self,
        members: &[Member],
        changes: &[Change],
    ) -> anyhow::Result<Vec<Option<String>>> {
        let (files, batches, count) = (self.clone(), batches(members, changes)?, changes.len());
        let work = move || {
            let mut places = vec![None; count];
            for batch in &batches {
                let (_, edited) = files.edited(batch)?;
                for (change, line) in batch.changes.iter().zip(edited.lines) {
                    places[*change] = Some(format!("{}:{line}", batch.file.display()));
                }
            }
            Ok(places)
        };
        blocking(work).await
    }

    /// Writes every file that changes, in the order of the changes. Returns how many.
    pub(super) async fn write(&self, members: &[Member], changes: &[Change]) -> anyhow::Result<usize> {
        let (files, batches) = (self.clone(), batches(members, changes)?);
        let work = move || {
            for (done, batch) in batches.iter().enumerate() {
                files.write_one(batch).with_context(|| match done {
                    0 => "nothing was written".to_owned(),
                    _ => format!("{done} of {} files were written", batches.len()),
                })?;
            }
            Ok(batches.len())
        };
        blocking(work).await
    }

    /// A file as it is and as it shall be.
    fn edited(&self, batch: &Batch) -> anyhow::Result<(Vec<u8>, edit::Edited)> {
        let name = batch.file.display();
        let bytes = files::read_file(&batch.file, self.max_file_bytes).with_context(|| name.to_string())?;
        let whole =
            std::str::from_utf8(&bytes).map_err(|_| anyhow!("{name}: is not UTF-8; edit it by hand"))?;
        let (bom, text) = whole.strip_prefix(BOM).map_or(("", whole), |text| (BOM, text));
        let syntax = files::syntax(&batch.file).with_context(|| format!("{name}: is no fleet file"))?;
        let mut edited = edit::edited(syntax, text, &batch.edits).map_err(|refused| {
            let edit::Refused { line, why } = refused;
            anyhow!("{name}:{line}: {why}")
        })?;
        let held = files::raw_values(&batch.file, text.as_bytes());
        let new = files::raw_values(&batch.file, edited.text.as_bytes());
        let wanted = wanted(held, batch)?;
        let new: Vec<_> = new.iter().map(|value| plain(value.as_ref())).collect();
        if let Some(at) = (0..wanted.len().max(new.len())).find(|at| wanted.get(*at) != new.get(*at)) {
            bail!(
                "{name}:{}: it can't be changed without changing something else (part {at} of the file would be another); edit it by hand",
                edited.lines.first().copied().unwrap_or(1)
            );
        }
        edited.text.insert_str(0, bom);
        Ok((bytes, edited))
    }

    fn write_one(&self, batch: &Batch) -> anyhow::Result<()> {
        let name = batch.file.display();
        // A link is followed, so that it stays one.
        let real = fs::canonicalize(&batch.file).with_context(|| name.to_string())?;
        let dir = real.parent().unwrap_or(Path::new("."));
        // Once more from the new content, should somebody else have written meanwhile.
        for _ in 0..2 {
            let (held, edited) = self.edited(batch)?;
            let advice = "is the directory writable? A mounted ConfigMap is changed by its object";
            // Its name begins with a dot: who watches the directory passes it over.
            let mut draft = NamedTempFile::new_in(dir).with_context(|| format!("{name}: {advice}"))?;
            draft.write_all(edited.text.as_bytes()).with_context(|| name.to_string())?;
            draft
                .as_file()
                .set_permissions(fs::metadata(&real)?.permissions())
                .with_context(|| name.to_string())?;
            draft.as_file().sync_all().with_context(|| name.to_string())?;
            if files::read_file(&real, self.max_file_bytes).with_context(|| name.to_string())? == held {
                draft.persist(&real).with_context(|| name.to_string())?;
                return Ok(());
            }
        }
        bail!("{name}: somebody else writes to it again and again; run the command again when that is over")
    }
}

/// The changes by file, in the order in which they come.
fn batches(members: &[Member], changes: &[Change]) -> anyhow::Result<Vec<Batch>> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for (at, change) in changes.iter().enumerate() {
        let member = &members[change.member];
        let file =
            member.at.as_deref().and_then(|at| at.rsplit_once(':')).map(|(file, _)| PathBuf::from(file));
        let file = file.with_context(|| format!("{} stands in no file", member.title()))?;
        let place = *places.entry(file.clone()).or_insert(batches.len());
        if place == batches.len() {
            batches.push(Batch { file, edits: Vec::new(), olds: Vec::new(), changes: Vec::new() });
        }
        let batch = &mut batches[place];
        batch.edits.push(Edit {
            object: Identity {
                api_version: member.api_version.clone(),
                kind: member.kind.clone(),
                namespace: member.namespace.clone(),
                name: member.name.clone(),
            },
            annotation: change.annotation.to_owned(),
            value: change.new.clone(),
        });
        batch.olds.push(change.old.clone());
        batch.changes.push(at);
    }
    Ok(batches)
}

/// What a file shall be read to. An error says that it is not as it was when the change was decided.
fn wanted(held: Vec<Option<Value>>, batch: &Batch) -> anyhow::Result<Vec<Option<Value>>> {
    let mut by_identity = std::collections::HashMap::new();
    for (at, value) in held.iter().enumerate() {
        if let Some(identity) = value.as_ref().and_then(identity) {
            by_identity.entry(identity).or_insert(at);
        }
    }
    let mut wanted = held;
    for (edit, old) in batch.edits.iter().zip(&batch.olds) {
        let title = format!("{} {}/{}", edit.object.kind, edit.object.namespace, edit.object.name);
        let found = by_identity.get(&edit.object).and_then(|at| wanted[*at].as_mut());
        let value =
            found.with_context(|| format!("{}: {title} is not there any more", batch.file.display()))?;
        let held = value["metadata"]["annotations"].get(&edit.annotation).map(text);
        if held != *old {
            bail!(
                "{}: {title} was changed meanwhile: its {} is {held:?} and was {old:?}; run the command again",
                batch.file.display(),
                edit.annotation
            );
        }
        let annotations = &mut value["metadata"]["annotations"];
        if !annotations.is_object() {
            *annotations = Value::Object(Map::new());
        }
        match &edit.value {
            Some(new) => annotations[&edit.annotation] = new.clone().into(),
            None => _ = annotations.as_object_mut().and_then(|map| map.remove(&edit.annotation)),
        }
    }
    Ok(wanted.iter().map(|value| plain(value.as_ref())).collect())
}

/// Without annotations that are none: nothing, `null` and `{}` are read alike.
fn plain(value: Option<&Value>) -> Option<Value> {
    let mut value = value?.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata.get("annotations").is_some_and(|all| all.as_object().is_none_or(Map::is_empty))
    {
        metadata.remove("annotations");
    }
    Some(value)
}

fn identity(value: &Value) -> Option<Identity> {
    let metadata = &value["metadata"];
    Some(Identity {
        api_version: value["apiVersion"].as_str()?.to_owned(),
        kind: value["kind"].as_str()?.to_owned(),
        namespace: metadata["namespace"].as_str().unwrap_or("default").to_owned(),
        name: metadata["name"].as_str()?.to_owned(),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await.context("reading files")?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::{DRAIN, Target, Wish};

    const SERVER: &str = "apiVersion: tidegate.dev/v1\nkind: Server\nmetadata: { name: a, annotations: { tidegate.dev/host: a.localhost } }\nspec: { address: 127.0.0.1, port: 7000 }\n";

    fn directory(text: &str) -> (tempfile::TempDir, Files) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.yaml"), text).unwrap();
        let files = Files { dir: dir.path().to_owned(), rules: Rules::default(), max_file_bytes: 1 << 20 };
        (dir, files)
    }

    /// What a drain of server `a` changes.
    fn drain(files: &Files) -> (Vec<Member>, Vec<Change>) {
        let members = files.read_now().unwrap().members;
        let name = crate::plan::Name { namespace: None, name: "a".into() };
        let targets = Target::Names(vec![name]).of(&members, Some("default")).unwrap();
        let changes = Wish::Drain(None).plan(&members, &targets).unwrap().changes;
        (members, changes)
    }

    #[tokio::test]
    async fn what_changed_since_it_was_read_is_not_overwritten() {
        let (dir, files) = directory(SERVER);
        let (members, changes) = drain(&files);
        let file = dir.path().join("a.yaml");
        let theirs =
            SERVER.replace("a.localhost }", "a.localhost, tidegate.dev/drain: \"https://b.localhost/\" }");
        fs::write(&file, &theirs).unwrap();
        let why = format!("{:#}", files.write(&members, &changes).await.unwrap_err());
        assert!(why.contains("was changed meanwhile") && why.contains(DRAIN), "{why}");
        assert_eq!(fs::read_to_string(&file).unwrap(), theirs);
        // What they wrote elsewhere stays, and ours comes beside it.
        let theirs = format!("# theirs\n{SERVER}");
        fs::write(&file, &theirs).unwrap();
        files.write(&members, &changes).await.unwrap();
        let both = theirs.replace("a.localhost }", "a.localhost, tidegate.dev/drain: \"true\" }");
        assert_eq!(fs::read_to_string(&file).unwrap(), both);
        fs::write(&file, "").unwrap();
        assert!(files.write(&members, &changes).await.is_err(), "it is not there any more");
    }

    /// The second object takes from the first what it does not say itself: it would be drained with it.
    #[tokio::test]
    async fn an_edit_that_would_change_another_object_is_refused() {
        let object = SERVER.trim_end().replace('\n', "\n  ");
        let text = format!("- &first\n  {object}\n- <<: *first\n  kind: Pod\n");
        let (dir, files) = directory(&text);
        let (members, changes) = drain(&files);
        let why = format!("{:#}", files.places(&members, &changes).await.unwrap_err());
        assert!(why.contains("a.yaml:4: it can't be changed without changing something else"), "{why}");
        assert!(files.write(&members, &changes).await.is_err());
        assert_eq!(fs::read_to_string(dir.path().join("a.yaml")).unwrap(), text);
    }
}
