//! A request, from its path to its answer.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};

use crate::journal::{Journal, Write};
use crate::patch::Patch;
use crate::refusal::Refusal;
use crate::route::{Query, Target, Verb};
use crate::selector::Selection;
use crate::serve::{self, Body, collected, full, json_bytes, refused};
use crate::store::{Key, State, Store};
use crate::watch::Watch;
use crate::write::{Outcome, Writer};
use crate::{Gone, Options, delete, discovery, list, stamp, watch, write};

/// What connections share.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Arc<Store>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) options: Arc<Options>,
}

/// One request to a resource that is known.
struct Asked {
    at: usize,
    verb: Verb,
    target: Target,
    query: Query,
    headers: HeaderMap,
    body: Bytes,
}

impl Api {
    pub(crate) async fn answer(self, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = match collected(body).await {
            Ok(body) => body,
            Err(refusal) => return refused(&refusal),
        };
        let Some(asked) = self.asked(&parts.method, &parts.uri, parts.headers, body.clone()) else {
            return self.about(parts.uri.path());
        };
        let (verb, resource) = (asked.verb, asked.target.resource());
        let answer = self.of_resource(&asked).unwrap_or_else(|refusal| refused(&refusal));
        let code = answer.status().as_u16();
        self.journal.count(verb, &resource, code);
        if verb.writes() {
            let path = parts.uri.to_string();
            self.journal.keep(Write { method: parts.method, path, resource, verb, code, body });
        }
        answer
    }

    fn asked(&self, method: &Method, uri: &http::Uri, headers: HeaderMap, body: Bytes) -> Option<Asked> {
        let target = Target::of(uri.path())?;
        let query = Query::of(uri.query());
        let verb = target.verb(method, &query)?;
        let state = self.store.lock();
        let at = state.find(&target.group, &target.version, &target.plural)?;
        let resource = &state.collections[at].resource;
        match target.subresource.as_deref() {
            None => {}
            Some("status") if resource.status => {}
            Some("binding") if resource.graceful && verb == Verb::Create => {}
            Some(_) => return None,
        }
        drop(state);
        Some(Asked { at, verb, target, query, headers, body })
    }

    /// What is no resource: the server's health, what it knows, or nothing.
    fn about(&self, path: &str) -> Response<Body> {
        if matches!(path, "/healthz" | "/livez" | "/readyz") {
            return serve::answer(StatusCode::OK, "text/plain", full(Bytes::from_static(b"ok")));
        }
        let state = self.store.lock();
        let resources: Vec<_> = state.collections.iter().map(|held| &*held.resource).collect();
        match discovery::answer(&resources, path) {
            Some(found) => serve::json(200, &found),
            // As the real server says it of a group that is not installed: text, not a `Status`.
            None => serve::answer(
                StatusCode::NOT_FOUND,
                "text/plain; charset=utf-8",
                full(Bytes::from_static(b"404 page not found\n")),
            ),
        }
    }

    fn of_resource(&self, asked: &Asked) -> Result<Response<Body>, Refusal> {
        if asked.verb.writes() {
            return self.write(asked);
        }
        let metadata_only = asked.headers.get(header::ACCEPT).is_some_and(|accept| {
            accept.to_str().is_ok_and(|accept| accept.contains("as=PartialObjectMetadata"))
        });
        match asked.verb {
            Verb::Watch => self.watch(asked, metadata_only),
            Verb::List => {
                let selection = asked.selection()?;
                let (page, resource) = {
                    let mut state = self.store.lock();
                    (list::list(&mut state, asked.at, &selection, &asked.query)?, state.resource(asked.at))
                };
                Ok(json_bytes(StatusCode::OK, list::rendered(&resource, &page, metadata_only)))
            }
            _ => {
                let version = self.store.lock().entry(asked.at, &asked.key())?.version.clone();
                let body = if metadata_only { list::metadata_of(&version) } else { version.json.clone() };
                Ok(json_bytes(StatusCode::OK, body))
            }
        }
    }

    fn watch(&self, asked: &Asked, metadata_only: bool) -> Result<Response<Body>, Refusal> {
        let (selection, every) = (asked.selection()?, self.options.bookmark_every);
        let opened = Watch::open(&self.store, asked.at, selection, &asked.query, metadata_only, every);
        let body = match opened {
            Ok(watch) => StreamBody::new(watch.frames().map(|frame| Ok(Frame::data(frame)))).boxed_unsync(),
            Err(gone) if gone.code == 410 && self.options.gone == Gone::Event => full(watch::error(&gone)),
            Err(refusal) => return Err(refusal),
        };
        Ok(serve::answer(StatusCode::OK, "application/json", body))
    }

    fn write(&self, asked: &Asked) -> Result<Response<Body>, Refusal> {
        if asked.query.get("dryRun").is_some() {
            return Err(Refusal::of(400, "dryRun: not served here; leave it out"));
        }
        let (at, key) = (asked.at, asked.key());
        let manager = asked.manager();
        let writer = Writer {
            manager: &manager,
            status: asked.target.subresource.as_deref() == Some("status"),
            force: asked.query.is_true("force"),
        };
        // Bodies are read before the lock is taken.
        let object = || {
            serde_json::from_slice::<Value>(&asked.body)
                .map_err(|error| Refusal::of(400, format!("the object is not JSON: {error}")))
        };
        let grace = asked.query.get("gracePeriodSeconds");
        let outcome = match asked.verb {
            Verb::Create if asked.target.subresource.is_some() => {
                let binding = object()?;
                bind(&mut self.store.lock(), at, &key, &binding)?;
                let done = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
                return Ok(serve::json(201, &done));
            }
            Verb::Create => {
                let object = object()?;
                let namespace = asked.target.namespace.as_deref();
                write::create(&mut self.store.lock(), at, namespace, object, writer)?
            }
            Verb::Update => {
                let object = object()?;
                write::replace(&mut self.store.lock(), at, &key, object, writer)?
            }
            Verb::Patch => {
                let content_type = asked.headers.get(header::CONTENT_TYPE);
                let content_type = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
                let resource = self.store.lock().resource(at);
                let patch = Patch::parse(&resource, content_type, &asked.body)?;
                write::patch(&mut self.store.lock(), at, &key, &patch, writer)?
            }
            Verb::Delete => {
                let options = delete::Options::parse(&asked.body, grace)?;
                let mut state = self.store.lock();
                let uid = state.entry(at, &key)?.object["metadata"]["uid"].clone();
                match delete::delete(&mut state, at, &key, &options)? {
                    Outcome::Gone(_) if !state.resource(at).graceful => {
                        return Ok(serve::json(200, &delete::success(&state, at, &key, &uid)));
                    }
                    outcome => outcome,
                }
            }
            _ => {
                let options = delete::Options::parse(&asked.body, grace)?;
                let selection = asked.selection()?;
                let mut state = self.store.lock();
                let page = list::list(&mut state, at, &selection, &Query::default())?;
                for version in &page.items {
                    let key = (version.namespace.clone(), version.name.clone());
                    delete::delete(&mut state, at, &key, &options)?;
                }
                let resource = state.resource(at);
                return Ok(json_bytes(StatusCode::OK, list::rendered(&resource, &page, false)));
            }
        };
        let code = match &outcome {
            Outcome::Stored(_, true) => StatusCode::CREATED,
            _ => StatusCode::OK,
        };
        Ok(json_bytes(code, outcome.version().json.clone()))
    }
}

impl Asked {
    fn key(&self) -> Key {
        let text = |part: &Option<String>| part.as_deref().unwrap_or_default().into();
        (text(&self.target.namespace), text(&self.target.name))
    }

    fn selection(&self) -> Result<Selection, Refusal> {
        let one = self.target.name.as_ref().map(|name| format!("metadata.name={name}"));
        let fields = one.as_deref().or(self.query.get("fieldSelector"));
        Selection::parse(self.target.namespace.as_deref(), self.query.get("labelSelector"), fields)
    }

    /// Who writes: `fieldManager`, or the program's name. An apply must say it.
    fn manager(&self) -> String {
        if let Some(manager) = self.query.get("fieldManager") {
            return manager.to_owned();
        }
        let content_type = self.headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
        if content_type.is_some_and(|value| value.starts_with(b"application/apply-patch")) {
            return String::new();
        }
        let agent = self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
        agent.and_then(|agent| agent.split('/').next()).unwrap_or("unknown").to_owned()
    }
}

/// What a scheduler asks for a Pod: `pods/NAME/binding`.
pub(crate) fn bind(state: &mut State, at: usize, key: &Key, binding: &Value) -> Result<(), Refusal> {
    let resource = state.resource(at);
    let Some(node) = binding["target"]["name"].as_str().filter(|node| !node.is_empty()) else {
        return Err(Refusal::invalid(&resource, &key.1, "target.name", "Required value"));
    };
    let entry = state.entry(at, key)?;
    let mut pod = entry.object.clone();
    if let Some(held) = pod["spec"]["nodeName"].as_str().filter(|held| !held.is_empty()) {
        let why = format!("pod {} is already assigned to node {held:?}", key.1);
        return Err(Refusal::conflict(&resource, &key.1, &why));
    }
    if !pod["spec"].is_object() {
        pod["spec"] = json!({});
    }
    pod["spec"]["nodeName"] = node.into();
    let scheduled = json!({ "conditions": [{ "type": "PodScheduled", "status": "True", "lastTransitionTime": stamp::now() }] });
    let pod = Patch::Strategic(json!({ "status": scheduled })).applied_to(&pod)?;
    state.put(at, key.clone(), pod, None);
    Ok(())
}
