//! The control plane's core in this process, without socket or task: its cost alone, and the very bytes
//! that it would send.

use std::sync::Arc;

use anyhow::Context;
use bytes::{Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use prost::Message;
use tidegate::engine::{Engine, Work};
use tidegate::model::{Event, Gateway, Server};
use tidegate::session::{DEFAULT_GATEWAY, Request, Session, Type, World};
use tidegate::snapshot::Applied;
use tidegate::sources::files;
use tidegate::store::Store;

/// Bytes of the gRPC frame around a message.
const FRAME: usize = 5;

/// An engine and its store.
pub(crate) struct Core {
    engine: Engine,
    store: Store,
}

impl Core {
    /// A fleet that was listed once.
    pub(crate) fn of(servers: Vec<Arc<Server>>) -> Self {
        let mut core = Self { engine: Engine::new([files::SOURCE]), store: Store::default() };
        core.apply([Event::Reset { source: files::SOURCE, servers }]);
        core
    }

    /// From events to what streams may read.
    pub(crate) fn apply(&mut self, events: impl IntoIterator<Item = Event>) -> (Work, Applied) {
        let commit = self.engine.apply(events);
        let work = commit.work;
        (work, self.store.commit(commit))
    }

    /// Makes the RDS table, as a stream that subscribes it has the owner do after each commit.
    pub(crate) fn make_table(&mut self) {
        std::hint::black_box(self.engine.table(&Gateway(DEFAULT_GATEWAY.into())));
    }
}

/// One Envoy's stream on a core.
pub(crate) struct Stream {
    session: Session,
}

impl Stream {
    /// Subscribes clusters, and scopes or the table.
    pub(crate) fn open(core: &Core, table: bool) -> anyhow::Result<Self> {
        let mut stream = Self { session: Session::new(1) };
        let node = Node { id: "loadtest".into(), cluster: DEFAULT_GATEWAY.into(), ..Default::default() };
        let mut clusters = subscription(Type::Clusters);
        clusters.node = Some(node);
        stream.hear(core, &clusters)?;
        stream.hear(core, &subscription(if table { Type::Routes } else { Type::Scopes }))?;
        Ok(stream)
    }

    fn hear(&mut self, core: &Core, request: &DeltaDiscoveryRequest) -> anyhow::Result<()> {
        let request = Request::decode(request.encode_to_vec().into()).context("a request")?;
        core.store.read(|snapshot| self.session.on_request(request, snapshot)).context("a request")?;
        Ok(())
    }

    /// All there is to say, acknowledged: the messages.
    pub(crate) fn drain(&mut self, core: &mut Core) -> anyhow::Result<Vec<Bytes>> {
        let mut messages = Vec::new();
        loop {
            let gateway = Gateway(DEFAULT_GATEWAY.into());
            let table =
                self.session.wants_table().then(|| (core.store.revision(), core.engine.table(&gateway)));
            let next = core
                .store
                .read(|snapshot| self.session.next(World { snapshot, table: table.as_ref(), whole: true }));
            let Some(push) = next.context("a push")? else { return Ok(messages) };
            let mut message = BytesMut::with_capacity(push.size());
            push.encode(&mut message);
            messages.push(message.freeze());
            let ack = DeltaDiscoveryRequest {
                type_url: push.type_url.into_owned(),
                response_nonce: push.nonce.to_string(),
                ..Default::default()
            };
            self.hear(core, &ack)?;
        }
    }
}

fn subscription(kind: Type) -> DeltaDiscoveryRequest {
    let mut request = DeltaDiscoveryRequest { type_url: kind.url().to_owned(), ..Default::default() };
    if kind == Type::Routes {
        request.resource_names_subscribe = vec![tidegate::translate::TABLE.to_owned()];
    }
    request
}

/// What messages weigh on the wire, with gRPC's frames around them.
pub(crate) fn weight(messages: &[Bytes]) -> usize {
    messages.iter().map(|message| message.len() + FRAME).sum()
}
