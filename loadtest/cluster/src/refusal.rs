//! What the API server says when it refuses: the `Status` objects of the Kubernetes API, word for word where
//! clients look at the words.

use std::fmt;

use serde_json::{Value, json};

use crate::kinds::Resource;

/// A refusal: `Status` with `status: Failure`.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP code.
    pub code: u16,
    /// `reason`, one word that clients compare.
    pub reason: &'static str,
    /// `message`, for people.
    pub message: String,
    /// `details`, or null.
    pub details: Value,
}

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl Refusal {
    /// A refusal with this code, and the reason that goes with it.
    pub fn of(code: u16, message: impl Into<String>) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 => "Conflict",
            410 => "Expired",
            413 => "RequestEntityTooLarge",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(self, resource: &Resource, name: &str) -> Self {
        let details = json!({ "name": name, "group": resource.group, "kind": resource.plural });
        Self { details, ..self }
    }

    pub(crate) fn not_found(resource: &Resource, name: &str) -> Self {
        Self::of(404, format!("{} {name:?} not found", resource.name())).about(resource, name)
    }

    pub(crate) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.name());
        Self { reason: "AlreadyExists", ..Self::of(409, message) }.about(resource, name)
    }

    pub(crate) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.name());
        Self::of(409, message).about(resource, name)
    }

    /// Another version of the object was met than the one the writer had read.
    pub(crate) fn outdated(resource: &Resource, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub(crate) fn invalid(resource: &Resource, name: &str, field: &str, why: &str) -> Self {
        let kind = qualified_kind(resource);
        let refusal = Self::of(422, format!("{kind} {name:?} is invalid: {field}: {why}"));
        let causes = json!([{ "reason": "FieldValueInvalid", "message": why, "field": field }]);
        let details =
            json!({ "name": name, "group": resource.group, "kind": resource.kind, "causes": causes });
        Self { details, ..refusal }
    }

    pub(crate) fn expired(asked: u64, floor: u64) -> Self {
        Self::of(410, format!("too old resource version: {asked} ({floor})"))
    }

    /// The body.
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

fn qualified_kind(resource: &Resource) -> String {
    crate::kinds::qualified(&resource.kind, &resource.group)
}
