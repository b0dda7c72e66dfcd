//! Reading objects: one, or a list in pages that all show the same moment.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use crate::kinds::Resource;
use crate::refusal::Refusal;
use crate::route::Query;
use crate::selector::Selection;
use crate::store::{OpenList, State, Version};

/// How many lists may be read page by page at once, of a kind; of more, the oldest expire.
const OPEN_LISTS: usize = 64;

/// One page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<Arc<Version>>,
    /// `metadata.resourceVersion` of the list.
    pub(crate) revision: u64,
    /// `metadata.continue`, if there is more.
    next: Option<String>,
    /// `metadata.remainingItemCount`; not said of a list with selectors.
    remaining: Option<usize>,
}

/// Lists what is selected, as the query's `limit`, `continue` and `resourceVersion` say.
pub(crate) fn list(
    state: &mut State,
    at: usize,
    selection: &Selection,
    query: &Query,
) -> Result<Page, Refusal> {
    let limit = match query.get("limit").map(str::parse::<usize>) {
        None | Some(Ok(0)) => usize::MAX,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            return Err(Refusal::of(400, "limit: not a number; expected how many objects a page may have"));
        }
    };
    let head = state.revision;
    let collection = &mut state.collections[at];
    let (OpenList { token, revision, all }, start) = if let Some(text) = query.get("continue") {
        let (token, start) = text
            .split_once('.')
            .and_then(|(token, start)| Some((token.parse::<u64>().ok()?, start.parse::<usize>().ok()?)))
            .ok_or_else(|| Refusal::of(400, "continue key is not valid"))?;
        let open = collection.open.iter().find(|open| open.token == token).cloned();
        let expired = "The provided continue parameter is too old to display a consistent list result. \
                       You must start a new list without the continue parameter.";
        (open.ok_or_else(|| Refusal::of(410, expired))?, start)
    } else {
        is_fresh(query, head, collection.floor)?;
        let token = collection.open.back().map_or(1, |open| open.token + 1);
        let open = OpenList { token, revision: head, all: collection.selected(selection).into() };
        if open.all.len() > limit {
            collection.open.push_back(open.clone());
            if collection.open.len() > OPEN_LISTS {
                collection.open.pop_front();
            }
        }
        (open, 0)
    };
    let start = start.min(all.len());
    let end = start.saturating_add(limit).min(all.len());
    let left = all.len() - end;
    Ok(Page {
        items: all[start..end].to_vec(),
        revision,
        next: (left > 0).then(|| format!("{token}.{end}")),
        remaining: (left > 0 && !selection.is_narrow()).then_some(left),
    })
}

/// Whether what is there now satisfies the `resourceVersion` a list asks for.
fn is_fresh(query: &Query, head: u64, floor: u64) -> Result<(), Refusal> {
    let Some(text) = query.get("resourceVersion") else { return Ok(()) };
    let asked = revision(text)?;
    let is_exact = query.get("resourceVersionMatch") == Some("Exact");
    if asked > head {
        // The real server waits three seconds for it first.
        return Err(Refusal::of(504, format!("Too large resource version: {asked}, current: {head}")));
    }
    if is_exact && asked != head {
        return Err(Refusal::expired(asked, floor.max(head)));
    }
    Ok(())
}

/// Reads a resource version.
pub(crate) fn revision(text: &str) -> Result<u64, Refusal> {
    text.parse()
        .map_err(|_| Refusal::of(400, format!("resourceVersion: Invalid value: {text:?}: must be a number")))
}

/// The body of a list.
pub(crate) fn rendered(resource: &Resource, page: &Page, metadata_only: bool) -> Bytes {
    let (kind, api_version) = if metadata_only {
        ("PartialObjectMetadataList".to_owned(), "meta.k8s.io/v1".to_owned())
    } else {
        (format!("{}List", resource.kind), resource.api_version())
    };
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(next) = &page.next {
        metadata["continue"] = next.clone().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    let head = format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
    let size: usize = page.items.iter().map(|item| item.json.len() + 1).sum();
    let mut body = BytesMut::with_capacity(head.len() + size + 2);
    body.put_slice(head.as_bytes());
    let types = format!(r#"{{"apiVersion":"{}","kind":"{}","#, resource.api_version(), resource.kind);
    for (place, item) in page.items.iter().enumerate() {
        if place > 0 {
            body.put_u8(b',');
        }
        match item.json.strip_prefix(types.as_bytes()) {
            _ if metadata_only => body.put_slice(&metadata_of(item)),
            // The items of a built-in list do not repeat their kind.
            Some(rest) if !resource.custom => {
                body.put_u8(b'{');
                body.put_slice(rest);
            }
            _ => body.put_slice(&item.json),
        }
    }
    body.put_slice(b"]}");
    body.freeze()
}

/// `PartialObjectMetadata` of an object.
pub(crate) fn metadata_of(version: &Version) -> Bytes {
    let object = version.object();
    let partial = json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").unwrap_or(&Value::Null),
    });
    partial.to_string().into()
}
