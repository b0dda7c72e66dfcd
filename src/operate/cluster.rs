//! Game servers in a cluster. What changes is one annotation of one object, by a merge patch that names the uid and the
//! version it was decided on; who was faster than us is read again, and only overruled where he wrote something else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::{Client, Error};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Read;
use super::members::{self, Raw};
use crate::cli::Place;
use crate::kinds::{Key, Kind, Manager, Rules, Sources};
use crate::plan::{Change, Member};
use crate::sources;
use crate::sources::files::read_value;

/// What we are called in field managers.
const NAME: &str = "tidegate-cli";
/// Objects that are written to at once: enough that thousands take minutes, few enough for any API server.
const BATCH: usize = 16;
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// How often a write is tried when others write to the same object.
const TRIES: usize = 5;
/// One request takes no longer.
const LIMIT: Duration = Duration::from_secs(30);

/// A cluster.
pub(super) struct Cluster {
    client: Client,
    /// The namespace of the kubeconfig or the pod.
    pub(super) namespace: String,
    /// Where servers are looked for; none: everywhere.
    scopes: BTreeSet<Option<String>>,
    managers: Vec<Manager>,
    rules: Rules,
    /// What a write to each member has to know.
    handles: BTreeMap<(String, String, String), Handle>,
}

#[derive(Clone)]
struct Handle {
    key: Key,
    uid: String,
    version: String,
}

/// All changes of one object.
struct Write {
    title: String,
    handle: Handle,
    changes: Vec<Change>,
}

impl Cluster {
    /// `said` are the namespaces that the targets name; none stands for those who name none.
    pub(super) async fn open(
        place: &Place,
        managers: &[Manager],
        said: &BTreeSet<Option<String>>,
    ) -> anyhow::Result<Self> {
        let (client, namespace) = sources::kube::connect().await?;
        // Only those that somebody named: for others there may be no right to list.
        let own = place.namespace.as_ref().unwrap_or(&namespace);
        let scopes: BTreeSet<_> = if place.all_namespaces {
            [None].into()
        } else {
            said.iter().map(|space| space.clone().or_else(|| Some(own.clone()))).collect()
        };
        Ok(Self {
            client,
            namespace,
            scopes,
            managers: managers.to_vec(),
            rules: place.rules.clone(),
            handles: BTreeMap::new(),
        })
    }

    pub(super) async fn read(&mut self) -> anyhow::Result<Read> {
        let groups =
            timeout(LIMIT, self.client.list_api_groups()).await.context("the API server does not answer")?;
        let groups = groups.context("asking the API server what it knows")?;
        let (mut raws, mut problems) = (Vec::new(), Vec::new());
        let mut is_installed = false;
        for manager in &self.managers {
            if !groups.groups.iter().any(|group| group.name == manager.group()) {
                continue;
            }
            is_installed = true;
            for kind in manager.kinds() {
                for value in self.list(*kind).await? {
                    match read_value(&value, &self.rules) {
                        Ok(Some(read)) => raws.push(Raw { value, read, at: None }),
                        Ok(None) => {}
                        Err(why) => problems.push(why),
                    }
                }
            }
        }
        if !is_installed {
            let groups: Vec<_> = self.managers.iter().map(|manager| manager.group()).collect();
            bail!("the cluster knows none of {}: no fleet manager is installed there", groups.join(", "));
        }
        let versions: BTreeMap<(String, String, String), (String, String)> = raws
            .iter()
            .map(|raw| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let metadata = &raw.value["metadata"];
                let key =
                    (text(&raw.value["apiVersion"]), text(&metadata["namespace"]), text(&metadata["name"]));
                (key, (text(&metadata["uid"]), text(&metadata["resourceVersion"])))
            })
            .collect();
        let sources = Sources { okg: sources::kube::OKG, agones: sources::kube::AGONES };
        let (found, left) = members::members(raws, &self.rules, sources);
        problems.extend(left);
        self.handles.clear();
        let mut members = Vec::new();
        for members::Found { member, key } in found {
            let name = (member.api_version.clone(), member.namespace.clone(), member.name.clone());
            if let (Some(key), Some((uid, version))) = (key, versions.get(&name)) {
                self.handles.insert(name, Handle { key, uid: uid.clone(), version: version.clone() });
            }
            members.push(member);
        }
        Ok(Read { members, problems })
    }

    /// All objects of a kind.
    async fn list(&self, kind: Kind) -> anyhow::Result<Vec<Value>> {
        let mut objects = Vec::new();
        for scope in &self.scopes {
            objects.extend(self.list_in(kind, scope.as_deref()).await?);
        }
        Ok(objects)
    }

    /// Those in one namespace; none is every namespace.
    async fn list_in(&self, kind: Kind, scope: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let api = kind.api_version();
        let root = if api.contains('/') { format!("/apis/{api}") } else { format!("/api/{api}") };
        let space = scope.map(|space| format!("/namespaces/{space}")).unwrap_or_default();
        let collection = kube::core::Request::new(format!("{root}{space}/{}", kind.plural()));
        let mut asked = ListParams::default().limit(PAGE);
        if kind == Kind::Pod {
            // Of all pods only those of sets make game servers.
            asked = asked.labels("game.kruise.io/owner-gss");
        }
        let mut objects = Vec::new();
        loop {
            let request = collection.list(&asked)?;
            let mut list: Value = timeout(LIMIT, self.client.request(request))
                .await
                .with_context(|| format!("listing {}: no answer in {LIMIT:?}", kind.plural()))?
                .map_err(|error| refused("list", kind, scope, "", error))?;
            let next = list["metadata"]["continue"].as_str().filter(|next| !next.is_empty());
            asked.continue_token = next.map(str::to_owned);
            if let Value::Array(items) = list["items"].take() {
                objects.extend(items.into_iter().map(|mut item| {
                    // A list says it once, for all.
                    if let Some(item) = item.as_object_mut() {
                        item.insert("apiVersion".to_owned(), api.into());
                        item.insert("kind".to_owned(), kind.name().into());
                    }
                    item
                }));
            }
            if asked.continue_token.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Writes the changes, some objects at once. Returns how many objects.
    pub(super) async fn write(&self, members: &[Member], changes: &[Change]) -> anyhow::Result<usize> {
        let mut writes: Vec<Write> = Vec::new();
        for change in changes {
            let member = &members[change.member];
            match writes.last_mut() {
                Some(last) if last.changes[0].member == change.member => last.changes.push(change.clone()),
                _ => {
                    let name = (member.api_version.clone(), member.namespace.clone(), member.name.clone());
                    let handle = self.handles.get(&name).cloned();
                    let handle = handle.with_context(|| format!("{} is in no cluster", member.title()))?;
                    writes.push(Write { title: member.title(), handle, changes: vec![change.clone()] });
                }
            }
        }
        let (all, mut done, mut failure) = (writes.len(), 0, None);
        let mut writes = writes.into_iter().peekable();
        while failure.is_none() && writes.peek().is_some() {
            let mut batch = JoinSet::new();
            for write in writes.by_ref().take(BATCH) {
                batch.spawn(written(self.client.clone(), write));
            }
            while let Some(ended) = batch.join_next().await {
                match ended.context("a write panicked").and_then(|result| result) {
                    Ok(()) => done += 1,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
        }
        match failure {
            None => Ok(done),
            Some(error) => Err(error.context(format!("{done} of {all} objects were written"))),
        }
    }
}

/// Writes to one object. Who else wrote to it meanwhile is heard: what we were asked to change must still be as it was.
async fn written(client: Client, write: Write) -> anyhow::Result<()> {
    let Write { title, mut handle, changes } = write;
    let Key { kind, namespace, name } = handle.key.clone();
    let api_version = kind.api_version();
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind.name());
    let resource = ApiResource::from_gvk_with_plural(&gvk, kind.plural());
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource);
    let manager = PatchParams { field_manager: Some(NAME.into()), ..PatchParams::default() };
    for _ in 0..TRIES {
        let annotations: Map<String, Value> =
            changes.iter().map(|change| (change.annotation.to_owned(), json!(change.new))).collect();
        let metadata =
            json!({ "uid": handle.uid, "resourceVersion": handle.version, "annotations": annotations });
        let patch = json!({ "metadata": metadata });
        let sent = timeout(LIMIT, api.patch_metadata(&name, &manager, &Patch::Merge(&patch))).await;
        match sent.with_context(|| format!("{title}: no answer in {LIMIT:?}"))? {
            Ok(_) => return Ok(()),
            Err(Error::Api(status)) if status.code == 409 || status.code == 422 => {
                let held: PartialObjectMeta<DynamicObject> = timeout(LIMIT, api.get_metadata(&name))
                    .await
                    .with_context(|| format!("{title}: no answer in {LIMIT:?}"))?
                    .map_err(|error| refused("get", kind, Some(&namespace), &title, error))?;
                if held.metadata.uid.as_deref() != Some(&handle.uid) {
                    bail!("{title} was made anew under its name meanwhile; run the command again");
                }
                let version = held.metadata.resource_version.clone().unwrap_or_default();
                if version == handle.version {
                    // It is not somebody else's write that is in the way.
                    return Err(refused("patch", kind, Some(&namespace), &title, Error::Api(status)));
                }
                for change in &changes {
                    let now = held.metadata.annotations.as_ref().and_then(|all| all.get(change.annotation));
                    if now != change.old.as_ref() && now != change.new.as_ref() {
                        bail!(
                            "{title} was changed meanwhile: its {} is {now:?} and was {:?}; run the command again",
                            change.annotation,
                            change.old
                        );
                    }
                }
                handle.version = version;
            }
            Err(error) => return Err(refused("patch", kind, Some(&namespace), &title, error)),
        }
    }
    bail!("{title}: others wrote to it {TRIES} times while we tried; run the command again")
}

/// What the API server said, and what to do.
fn refused(verb: &str, kind: Kind, space: Option<&str>, title: &str, error: Error) -> anyhow::Error {
    let group = kind.api_version().split_once('/').map_or("", |(group, _)| group);
    let resource =
        if group.is_empty() { kind.plural().to_owned() } else { format!("{}.{group}", kind.plural()) };
    let about = if title.is_empty() { format!("{verb} {resource}") } else { title.to_owned() };
    let place = space.map_or_else(|| "-A".to_owned(), |space| format!("-n {space}"));
    match error {
        Error::Api(status) => {
            let hint = match status.code {
                401 => {
                    "; the API server does not know who asks: is the kubeconfig's user still good?".to_owned()
                }
                403 => format!(
                    "; this needs the right `{verb}` on {resource}, as `kubectl auth can-i {verb} {resource} {place}` says"
                ),
                404 if !title.is_empty() => "; it is gone meanwhile".to_owned(),
                404 => format!("; is the resource {resource} installed in this version?"),
                422 => "; an admission rule or the object's schema does not allow it".to_owned(),
                _ => String::new(),
            };
            anyhow!("{about}: {} ({}){hint}", status.message, status.code)
        }
        error => anyhow!("{about}: {error}"),
    }
}
