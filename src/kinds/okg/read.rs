//! A pod, or what a set would make one from, to servers: every object that has a say becomes a layer of
//! annotations, the nearest first, and `networkConf` one in our words behind them.
//!
//! Who is routed asked for it: with a network of a claimed ingress class, with our own network type, or with
//! any annotation of ours. The last takes the words of a conf that is not claimed too: an annotation on the
//! set moves a fleet over, and no pod is made again.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::conf::{self, Conf, Group, Hosts};
use super::declared::{Declared, Said, Type, shown};
use super::{GameServer, GameServerSet, life, set_of};
use crate::kinds::pod::{Container, Pod};
use crate::kinds::{Meta, Rules};
use crate::model::{Age, PathPrefix, Problem, ProblemKind, Server, ServerId, Source};
use crate::spec::{self, Facts, Layer, PREFIX, Port, State};

const POD: &str = "Pod metadata.annotations";
const TEMPLATE: &str = "GameServerSet spec.gameServerTemplate.metadata.annotations";

/// The servers of a pod: one a port that its network has.
pub fn servers(
    pod: &Pod,
    server: Option<&GameServer>,
    set: Option<&GameServerSet>,
    rules: &Rules,
    source: Source,
) -> Vec<Server> {
    let declared = Declared::of_annotations(&pod.metadata, POD);
    let allowed: Vec<String> = declared.allowed().into_iter().map(str::to_owned).collect();
    let allowed: Vec<&str> = allowed.iter().map(String::as_str).collect();
    let state = |port| life::state(pod, server, port, &allowed, rules);
    let body = Body {
        name: &pod.metadata.name,
        namespace: &pod.metadata.namespace,
        age: pod.metadata.age,
        fleet: set_of(pod),
        meta: &pod.metadata,
        place: POD,
        containers: &pod.spec.containers,
        address: pod.ip(),
        state: &state,
    };
    let mut servers = body.servers(declared, server, set, rules, source);
    if life::is_disabled(&pod.metadata, server) {
        // Its network is off, not its door shut to strangers: nobody comes back either.
        for server in &mut servers {
            server.desired.drain_cookie = None;
        }
    }
    servers
}

/// The servers that a set would make under a name, without a pod.
pub(super) fn of_template(
    name: &str,
    server: Option<&GameServer>,
    set: &GameServerSet,
    rules: &Rules,
    source: Source,
) -> Vec<Server> {
    let template = &set.spec.game_server_template;
    let is_shut = life::is_shut(&template.metadata, server, rules);
    let state = |_| if is_shut { State::Draining } else { State::Starting };
    let body = Body {
        name,
        namespace: &set.metadata.namespace,
        age: Age::Unknown,
        fleet: Some(&set.metadata.name),
        meta: &template.metadata,
        place: TEMPLATE,
        containers: &template.spec.containers,
        address: None,
        state: &state,
    };
    body.servers(declared_by(set), server, Some(set), rules, source)
}

/// Why a pod makes no server.
pub fn unrouted(pod: &Pod) -> String {
    if set_of(pod).is_none() {
        return "it is no pod of a GameServerSet: it has no label game.kruise.io/owner-gss".to_owned();
    }
    Declared::of_annotations(&pod.metadata, POD).unclaimed()
}

/// Why a set's pods would make no server.
pub fn unrouted_set(set: &GameServerSet) -> String {
    declared_by(set).unclaimed()
}

/// True when a set keeps its servers' addresses while their pods are away.
pub(super) fn is_fixed(set: &GameServerSet) -> bool {
    declared_by(set).is_fixed()
}

/// `spec.network` stands over the same words in the template's annotations.
fn declared_by(set: &GameServerSet) -> Declared {
    match &set.spec.network {
        Some(network) => Declared::of_set(network),
        None => Declared::of_annotations(&set.spec.game_server_template.metadata, TEMPLATE),
    }
}

/// What a server is read from.
struct Body<'a> {
    name: &'a str,
    namespace: &'a str,
    age: Age,
    fleet: Option<&'a str>,
    meta: &'a Meta,
    /// Where its annotations stand.
    place: &'a str,
    containers: &'a [Container],
    address: Option<IpAddr>,
    /// By the port.
    state: &'a dyn Fn(Option<u16>) -> State,
}

impl Body<'_> {
    fn servers(
        &self,
        declared: Declared,
        server: Option<&GameServer>,
        set: Option<&GameServerSet>,
        rules: &Rules,
        source: Source,
    ) -> Vec<Server> {
        let metas = [server.map(|server| &server.metadata), set.map(|set| &set.metadata), Some(self.meta)];
        let is_claimed = match declared.kind {
            Type::Ingress => rules.claims(declared.class()),
            Type::Own => true,
            Type::None | Type::Other => false,
        };
        if !is_claimed && !metas.into_iter().flatten().any(Meta::has_own_annotation) {
            return Vec::new();
        }
        // A set's age counts for all of it: a server keeps its host against a stranger who came while its
        // pod was made again.
        let age = set.map(|set| set.metadata.age).filter(|age| *age != Age::Unknown).unwrap_or(self.age);
        let places = ["GameServer metadata.annotations", "GameServerSet metadata.annotations", self.place];
        let layers: Vec<_> = metas
            .into_iter()
            .zip(places)
            .filter_map(|(meta, place)| Some(Layer::new(place, &meta?.annotations)))
            .collect();

        let mut conf = conf::read(declared, spec::ordinal(self.name));
        conf.problems.extend(self.misnumbered());
        let mut problems = std::mem::take(&mut conf.problems);
        let groups = Self::groups(&mut conf, &layers);
        let mut servers = Vec::with_capacity(groups.len());
        for (at, group) in groups.into_iter().enumerate() {
            let name = match (at, group.port) {
                (0, _) => self.name.to_owned(),
                (_, conf::Port::Number(number)) => format!("{}:{number}", self.name),
                (_, conf::Port::Unsaid | conf::Port::Bad) => format!("{}:0", self.name),
            };
            let own = Words::of(&conf, &group, &layers, rules);
            let mut all = Vec::with_capacity(layers.len() + 2);
            // In front of all: what can't be read must not become another's route.
            let shut = BTreeMap::from([(key("host"), String::new())]);
            if own.is_shut {
                all.push(Layer::new("", &shut));
            }
            all.extend_from_slice(&layers);
            all.push(Layer { field: self.place, values: &own.values, written: Some(&own.written) });
            let ports = self.ports(&group, &layers);
            servers.push(spec::read(Facts {
                id: ServerId::new(source, self.namespace, &name),
                name: Some(self.name),
                age,
                fleet: self.fleet,
                address: self.address,
                ports: &ports,
                state: (self.state)(chosen(&layers, &ports)),
                layers: &all,
                host_template: rules.host_template.as_deref(),
                // Said once, with the first; but whose port is bad has to know.
                problems: if at == 0 { std::mem::take(&mut problems) } else { Vec::new() },
            }));
        }
        servers
    }

    /// OpenKruiseGame counts by the name, Kubernetes by a label; they are the same, or something is odd.
    fn misnumbered(&self) -> Option<Problem> {
        let label = self.meta.label("apps.kubernetes.io/pod-index")?;
        if spec::ordinal(self.name) == Some(label) {
            return None;
        }
        let why = format!(
            "{} is not the number at the end of the name {:?}, which <id> stands for",
            shown(label),
            self.name
        );
        let field = "Pod metadata.labels[\"apps.kubernetes.io/pod-index\"]";
        Some(Problem::new(ProblemKind::BadValue, field, why))
    }

    /// Whoever writes a port or a path in our words says it for the whole server: it has one port then.
    fn groups(conf: &mut Conf, layers: &[Layer<'_>]) -> Vec<Group> {
        let mut groups = std::mem::take(&mut conf.groups);
        if says(layers, "port") {
            let rest = groups.split_off(1.min(groups.len()));
            if let Some(first) = groups.first_mut() {
                for group in rest {
                    first.paths.extend(group.paths);
                    first.strip = first.strip.take().or(group.strip);
                }
            }
        } else if says(layers, "path") {
            groups.truncate(1);
        }
        groups
    }

    /// The default first, then those that can be chosen by name.
    fn ports(&self, group: &Group, layers: &[Layer<'_>]) -> Vec<Port> {
        let declared = self.containers.iter().flat_map(|container| &container.ports);
        let declared = declared.filter(|port| port.is_tcp()).map(|port| Port {
            name: port.name.as_deref().filter(|name| !name.is_empty()).map(str::to_owned),
            number: port.container_port,
        });
        match group.port {
            conf::Port::Unsaid => declared.collect(),
            conf::Port::Number(number) => [Port { name: None, number }].into_iter().chain(declared).collect(),
            // A mistyped port must not send players to whatever else the pod has.
            conf::Port::Bad if says(layers, "port") => declared.collect(),
            conf::Port::Bad => Vec::new(),
        }
    }
}

/// A network's conf in our words.
#[derive(Debug, Default)]
struct Words {
    values: BTreeMap<String, String>,
    /// Where each really stands.
    written: BTreeMap<String, String>,
    /// It asks for routes in a way that can't be read, and nobody nearer says another.
    is_shut: bool,
}

impl Words {
    fn of(conf: &Conf, group: &Group, layers: &[Layer<'_>], rules: &Rules) -> Self {
        let mut words = Self::default();
        match &conf.hosts {
            Hosts::One(said) => words.say("host", Some(said)),
            // The config's template names hosts for servers that name none: an Ingress without a host is one.
            Hosts::All if rules.host_template.is_none() => {
                _ = words.values.insert(key("host"), "*".into());
                words.written.insert(key("host"), group.field.clone());
            }
            Hosts::All | Hosts::Unsaid => {}
            Hosts::Bad => words.is_shut |= !says(layers, "host"),
        }
        if group.paths.is_empty() {
            words.is_shut |= !says(layers, "path");
        } else {
            let paths: Vec<_> = group.paths.iter().map(PathPrefix::as_str).collect();
            words.values.insert(key("path"), paths.join(","));
            words.written.insert(key("path"), group.field.clone());
        }
        // A rewrite was written for the conf's own paths.
        words.say("strip-prefix", group.strip.as_ref().filter(|_| !says(layers, "path")));
        words.say("idle-timeout", conf.idle.as_ref());
        let redirect = conf.redirect.clone().map(|said| Said { text: "true".into(), ..said });
        words.say("https-redirect", redirect.as_ref());
        words
    }

    fn say(&mut self, word: &str, said: Option<&Said>) {
        if let Some(Said { field, text }) = said {
            self.values.insert(key(word), text.clone());
            self.written.insert(key(word), field.clone());
        }
    }
}

fn key(word: &str) -> String {
    format!("{PREFIX}{word}")
}

/// True when any of these objects has the annotation.
fn says(layers: &[Layer<'_>], word: &str) -> bool {
    let key = key(word);
    layers.iter().any(|layer| layer.values.contains_key(&key))
}

/// The port that `spec` will choose: its container's readiness is the server's.
fn chosen(layers: &[Layer<'_>], ports: &[Port]) -> Option<u16> {
    let key = key("port");
    match layers.iter().find_map(|layer| layer.values.get(&key)).map(|text| text.trim()) {
        None => ports.first().map(|port| port.number),
        Some(text) => {
            let named = ports.iter().find(|port| port.name.as_deref() == Some(text));
            named.map(|port| port.number).or_else(|| text.parse().ok())
        }
    }
}
