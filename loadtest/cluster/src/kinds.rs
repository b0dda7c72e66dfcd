//! The kinds of objects a cluster knows: what a custom resource definition would say of each, and the sets
//! that come with a plain cluster, OpenKruiseGame and Agones.

/// What the API server must know to serve one kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // each is a property of its own, as in a CRD
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version served and stored.
    pub version: String,
    /// `kind` of an object.
    pub kind: String,
    /// The name in paths.
    pub plural: String,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` is a subresource: then a plain write leaves `status` alone, and a write of it all else.
    pub status: bool,
    /// Defined by a CRD: no strategic merge patch, no unconditional replace, `metadata.generation` is kept.
    pub custom: bool,
    /// Deleted in two steps, as Pods are: `deletionTimestamp` first, gone when grace 0 is asked.
    pub graceful: bool,
    /// Every writer of a field is remembered from the start, so that a server-side apply can meet a conflict.
    pub managed: bool,
}

impl Resource {
    /// A namespaced kind that is built into the API server.
    pub fn built_in(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespaced: true,
            status: false,
            custom: false,
            graceful: false,
            managed: false,
        }
    }

    /// A namespaced kind that a CRD defines, without a status subresource.
    pub fn custom(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self { custom: true, ..Self::built_in(group, version, kind, plural) }
    }

    /// The same kind with a status subresource.
    #[must_use]
    pub fn with_status(self) -> Self {
        Self { status: true, ..self }
    }

    /// The same kind outside namespaces.
    #[must_use]
    pub fn cluster_wide(self) -> Self {
        Self { namespaced: false, ..self }
    }

    /// As `kubectl` says it: `pods`, `gameservers.agones.dev`.
    pub fn name(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// `apiVersion` of an object.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// The path of the collection, in a namespace or across them.
    pub fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let api = self.api_version();
        match namespace.filter(|_| self.namespaced) {
            Some(namespace) => format!("{root}/{api}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{api}/{}", self.plural),
        }
    }
}

/// `plural` or `plural.group`.
pub(crate) fn qualified(plural: &str, group: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// What every cluster has, as far as game servers and their control planes use it.
pub fn built_in() -> Vec<Resource> {
    let pods = Resource::built_in("", "v1", "Pod", "pods").with_status();
    let leases = Resource::built_in("coordination.k8s.io", "v1", "Lease", "leases");
    vec![
        Resource::built_in("", "v1", "Namespace", "namespaces").with_status().cluster_wide(),
        Resource { graceful: true, ..pods },
        Resource::built_in("", "v1", "Event", "events"),
        Resource::built_in("", "v1", "Secret", "secrets"),
        // A real server shows these and the core events as one store; here each group has its own.
        Resource::built_in("events.k8s.io", "v1", "Event", "events"),
        Resource { managed: true, ..leases },
    ]
}

/// What OpenKruiseGame installs.
pub fn okg() -> Vec<Resource> {
    ["GameServer", "GameServerSet"]
        .map(|kind| {
            let plural = format!("{}s", kind.to_lowercase());
            Resource::custom("game.kruise.io", "v1alpha1", kind, &plural).with_status()
        })
        .into()
}

/// What Agones installs. Its `GameServer` has no status subresource.
pub fn agones() -> Vec<Resource> {
    vec![
        Resource::custom("agones.dev", "v1", "GameServer", "gameservers"),
        Resource::custom("agones.dev", "v1", "Fleet", "fleets").with_status(),
    ]
}
