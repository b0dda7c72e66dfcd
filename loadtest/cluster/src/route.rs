//! What a request asks: the resource in its path, and the verb that authorization would name.

use http::Method;

use crate::kinds::qualified;

/// What is asked of an object or a collection, as RBAC names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// Whether it can alter anything.
    pub fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::List | Self::Watch)
    }
}

/// A resource path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace, if one is named.
    pub namespace: Option<String>,
    /// The collection.
    pub plural: String,
    /// The object.
    pub name: Option<String>,
    /// `status`, `binding`.
    pub subresource: Option<String>,
}

impl Target {
    /// Takes a path apart; `None` if it is not that of a resource.
    pub fn of(path: &str) -> Option<Self> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let group = match segments.next()? {
            "api" => "",
            "apis" => segments.next()?,
            _ => return None,
        };
        let version = segments.next()?;
        let rest: Vec<&str> = segments.collect();
        let (namespace, rest) = match rest.as_slice() {
            // `namespaces/a/status` is a namespace's own; `namespaces/a/pods` is what is in it.
            ["namespaces", _, "status" | "finalize"] => (None, rest.as_slice()),
            ["namespaces", namespace, inside @ ..] if !inside.is_empty() => (Some(*namespace), inside),
            _ => (None, rest.as_slice()),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (plural, None, None),
            [plural, name] => (plural, Some(name), None),
            [plural, name, subresource] => (plural, Some(name), Some(subresource)),
            _ => return None,
        };
        let owned = |text: &&str| (*text).to_owned();
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            namespace: namespace.map(str::to_owned),
            plural: owned(plural),
            name: name.map(owned),
            subresource: subresource.map(owned),
        })
    }

    /// `pods`, `gameservers.agones.dev`.
    pub fn resource(&self) -> String {
        qualified(&self.plural, &self.group)
    }

    /// What is asked of it.
    pub fn verb(&self, method: &Method, query: &Query) -> Option<Verb> {
        let one = self.name.is_some();
        Some(match *method {
            Method::GET if query.is_true("watch") => Verb::Watch,
            Method::GET if one => Verb::Get,
            Method::GET => Verb::List,
            Method::POST => Verb::Create,
            Method::PUT if one => Verb::Update,
            Method::PATCH if one => Verb::Patch,
            Method::DELETE if one => Verb::Delete,
            Method::DELETE => Verb::DeleteCollection,
            _ => return None,
        })
    }
}

/// The query of a request.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what stands behind the `?`.
    pub fn of(text: Option<&str>) -> Self {
        Self(form_urlencoded::parse(text.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// A parameter's value; an empty one counts as absent, as it does for the API server.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// Whether a flag is set.
    pub fn is_true(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        let target = Target::of("/apis/agones.dev/v1/namespaces/games/gameservers/a/status").unwrap();
        assert_eq!(target.resource(), "gameservers.agones.dev");
        assert_eq!(target.namespace.as_deref(), Some("games"));
        assert_eq!((target.name.as_deref(), target.subresource.as_deref()), (Some("a"), Some("status")));
        let target = Target::of("/api/v1/namespaces/games").unwrap();
        assert_eq!((target.plural.as_str(), target.name.as_deref()), ("namespaces", Some("games")));
        assert_eq!(Target::of("/api/v1/pods").unwrap().namespace, None);
        for other in ["/", "/version", "/api", "/api/v1", "/apis/agones.dev/v1", "/apis/a/v1/b/c/d/e"] {
            assert_eq!(Target::of(other), None, "{other}");
        }
    }
}
