//! One write to the API server.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, Status};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::words::{Complaint, Write};
use crate::kinds::{Key, Target};

/// What we are called in field managers and Events.
const NAME: &str = "tidegate";
/// A write takes no longer: a webhook may hang.
const LIMIT: Duration = Duration::from_secs(15);

/// What came of a write.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is there.
    Done,
    /// The object is not, or another has its name.
    Gone,
    /// It may work later; the API server's words.
    Failed(String),
}

/// Writes to a cluster.
pub(super) struct Sender {
    client: Client,
    reporter: Reporter,
}

impl Sender {
    pub(super) fn new(client: Client, identity: String) -> Self {
        let reporter = Reporter { controller: NAME.into(), instance: Some(identity) };
        Self { client, reporter }
    }

    /// Writes all of it, or as much as goes well.
    pub(super) async fn send(&self, write: &Write) -> Outcome {
        match timeout(LIMIT, self.parts(write)).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(Error::Api(status))) if is_gone(&status) => Outcome::Gone,
            Ok(Err(Error::Api(status))) => Outcome::Failed(format!("{} ({})", status.message, status.code)),
            Ok(Err(error)) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Failed(format!("no answer in {LIMIT:?}")),
        }
    }

    async fn parts(&self, write: &Write) -> Result<(), Error> {
        if let Some((pod, status)) = &write.network {
            let annotations = json!({ "game.kruise.io/network-status": status });
            self.patch(pod, &json!({ "metadata": { "uid": pod.uid, "annotations": annotations } })).await?;
        }
        let Some(target) = &write.target else { return Ok(()) };
        if let Some(marks) = &write.marks {
            self.patch(target, &marks.patch(&target.uid)).await?;
        }
        if let Some((_, patch)) = &write.live {
            self.patch(target, patch).await?;
        }
        for complaint in &write.complaints {
            self.complain(target, complaint).await?;
        }
        Ok(())
    }

    async fn patch(&self, target: &Target, patch: &Value) -> Result<(), Error> {
        let Key { kind, namespace, name } = &target.key;
        let kind = ApiResource::from_gvk_with_plural(&gvk(target), kind.plural());
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind);
        let manager = PatchParams { field_manager: Some(NAME.into()), ..PatchParams::default() };
        // What comes back is the whole object; nobody reads it.
        api.patch_metadata(name, &manager, &Patch::Merge(patch)).await.map(|_| ())
    }

    async fn complain(&self, target: &Target, complaint: &Complaint) -> Result<(), Error> {
        let event = Event {
            type_: EventType::Warning,
            reason: complaint.reason.into(),
            note: Some(complaint.note.clone()),
            action: "Route".into(),
            secondary: None,
        };
        let object = ObjectReference {
            api_version: Some(target.key.kind.api_version().into()),
            kind: Some(target.key.kind.name().into()),
            namespace: Some(target.key.namespace.to_string()),
            name: Some(target.key.name.to_string()),
            uid: Some(target.uid.to_string()),
            ..ObjectReference::default()
        };
        // A recorder that has said something of this object takes another note for the same one, seen again. What was
        // said is remembered elsewhere.
        Recorder::new(self.client.clone(), self.reporter.clone()).publish(&event, &object).await
    }
}

/// True when the object is not there, or another has its name.
fn is_gone(status: &Status) -> bool {
    match status.code {
        // 409: the uid in the patch is not its own.
        404 | 409 => true,
        // So says of a uid who takes it for a change of it; and a webhook, of whatever it does not like.
        422 => {
            let mut causes = status.details.iter().flat_map(|details| &details.causes);
            causes.any(|cause| cause.field == "metadata.uid")
        }
        _ => false,
    }
}

fn gvk(target: &Target) -> GroupVersionKind {
    let api = target.key.kind.api_version();
    let (group, version) = api.split_once('/').unwrap_or(("", api));
    GroupVersionKind::gvk(group, version, target.key.kind.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_no_sign_that_an_object_is_gone_unless_it_is_about_its_uid() {
        let status = |code: u16, field: &str| -> Status {
            let causes = json!([{ "reason": "FieldValueInvalid", "field": field }]);
            serde_json::from_value(json!({ "code": code, "details": { "causes": causes } })).unwrap()
        };
        assert!(is_gone(&status(422, "metadata.uid")));
        assert!(is_gone(&status(404, "")) && is_gone(&status(409, "")));
        assert!(!is_gone(&status(422, "metadata.annotations")) && !is_gone(&status(403, "metadata.uid")));
        assert!(!is_gone(&Status::failure("denied by a policy", "Invalid").with_code(422)));
    }
}
