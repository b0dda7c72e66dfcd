//! Where a GameServer is reached: at its pod and the container's port, or at its node and the host port.
//!
//! What the controller has not written yet is no problem, only no address; what can never become an
//! address is one. Only the port that players use is looked at.

use std::net::IpAddr;

use super::{At, GameServer, short};
use crate::kinds::{Rules, Upstream};
use crate::model::{Problem, ProblemKind};
use crate::spec::{self, PREFIX};

/// An address and the ports behind it, the default first.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) address: Option<IpAddr>,
    /// There is none because the controller has not written it yet: nobody's mistake.
    pub(super) is_awaited: bool,
    pub(super) ports: Vec<spec::Port>,
    pub(super) problems: Vec<Problem>,
}

/// Most ports that are read of one server.
const MAX_PORTS: usize = 64;

const POD_IP: &str = "PodIP";

/// What is known of an address or a port number.
type Found<T> = Result<Option<T>, Problem>;

/// `pod` is the address that the pod itself tells.
pub(super) fn of(server: &GameServer, pod: Option<IpAddr>, rules: &Rules, at: At) -> Place {
    let by = By::of(server, rules);
    let written = server.metadata.annotation(&format!("{PREFIX}port")).map(str::trim);
    let mut problems = Vec::new();
    let count = server.spec.ports.len();
    if count > MAX_PORTS {
        let why = format!("has {count} ports; the first {MAX_PORTS} are read");
        problems.push(Problem::new(ProblemKind::TooLarge, at.ports, why));
    }
    let numbers: Vec<_> = (0..count.min(MAX_PORTS)).map(|index| number(server, index, by, at)).collect();
    let (ports, indices) = ports(server, &numbers, by);
    let used = match written {
        None => indices.first(),
        Some(text) => {
            let named = ports.iter().position(|port| port.name.as_deref() == Some(text));
            named.and_then(|named| indices.get(named))
        }
    };
    if written.is_none() && used.is_none() {
        let why =
            format!("is empty; expected the port that players use, here or as a number in {PREFIX}port");
        problems.push(Problem::new(ProblemKind::Missing, at.ports, why));
    }
    let address = match by {
        By::Pod => pod_ip(server, pod),
        By::Node | By::Development => node_ip(server),
    };
    // With no such port it is a number as it is written, or a word that is none, which `spec` reports.
    let number = used.and_then(|used| numbers.into_iter().nth(*used)).unwrap_or(Ok(Some(0)));
    let (address, is_awaited) = match (address, number) {
        (Ok(address), Ok(number)) => {
            let is_awaited = address.is_none() || number.is_none();
            (address.filter(|_| !is_awaited), is_awaited)
        }
        (address, number) => {
            problems.extend([address.err(), number.err()].into_iter().flatten());
            (None, false)
        }
    };
    Place { address, is_awaited, ports, problems }
}

#[derive(Clone, Copy, PartialEq)]
enum By {
    Pod,
    Node,
    Development,
}

impl By {
    fn of(server: &GameServer, rules: &Rules) -> Self {
        let development = server.metadata.annotation("agones.dev/dev-address");
        match rules.upstream {
            // Agones runs no pod for it: it is at this address, and its host ports are its own.
            _ if development.is_some_and(|address| !address.is_empty()) => Self::Development,
            Upstream::Pod => Self::Pod,
            Upstream::Node => Self::Node,
        }
    }
}

/// True when players are sent to the pod, and the addresses are told, but the pod's not among them.
pub(super) fn wants_pod(server: &GameServer, rules: &Rules) -> bool {
    let status = &server.status;
    By::of(server, rules) == By::Pod
        && status.is_told()
        && !status.addresses.iter().any(|address| &*address.kind == POD_IP)
}

/// The ports by all the names that a user may write, and the index of each in `spec.ports`. The number
/// of one that is not known is 0, and there is no address for it.
fn ports(server: &GameServer, numbers: &[Found<u16>], by: By) -> (Vec<spec::Port>, Vec<usize>) {
    let numbered =
        |index: usize| numbers.get(index).and_then(|number| number.as_ref().ok().copied().flatten());
    let mut ports = Vec::new();
    let mut indices = Vec::new();
    let mut add = |name: Option<String>, index: usize| {
        ports.push(spec::Port { name, number: numbered(index).unwrap_or_default() });
        indices.push(index);
    };
    let declared = || server.spec.ports.iter().enumerate().take(MAX_PORTS);
    for (index, port) in declared() {
        add((!port.name.is_empty()).then(|| port.name.to_string()), index);
    }
    for (index, port) in declared() {
        // Agones makes `game-tcp` and `game-udp` of a port `game` with the protocol TCPUDP.
        if let Some(name) = port.name.strip_suffix("-tcp") {
            add(Some(name.to_owned()), index);
        }
        // Nobody knows the host's ports: a number is the container's.
        if by == By::Node && port.container_port != 0 {
            add(Some(port.container_port.to_string()), index);
        }
    }
    (ports, indices)
}

fn number(server: &GameServer, index: usize, by: By, at: At) -> Found<u16> {
    let Some(port) = server.spec.ports.get(index) else { return Ok(None) };
    // `status.ports` has the order of `spec.ports`; the name says so, or finds it.
    let ports = &server.status.ports;
    let status = ports
        .get(index)
        .filter(|status| status.name == port.name)
        .or_else(|| ports.iter().find(|status| status.name == port.name));
    let host_port = || status.map(|status| checked(status.port, || format!("status.ports[{index}].port")));
    match by {
        By::Pod if port.container_port == 0 && &*port.port_policy == "Passthrough" => {
            // It listens on the number of its host port, which Agones draws.
            host_port().transpose()
        }
        By::Pod => checked(port.container_port, || format!("{}[{index}].containerPort", at.ports)).map(Some),
        By::Node if &*port.port_policy == "None" => Err(Problem::new(
            ProblemKind::BadValue,
            format!("{}[{index}].portPolicy", at.ports),
            "\"None\" gives the port no number at the node; expected Dynamic, Static or Passthrough, or servers reached at their pods (upstream: pod)",
        )),
        By::Node | By::Development => host_port().transpose(),
    }
}

fn checked(number: i64, field: impl FnOnce() -> String) -> Result<u16, Problem> {
    u16::try_from(number).ok().filter(|number| *number != 0).ok_or_else(|| {
        let why = format!("{number} is not a port; expected a number from 1 to 65535");
        Problem::new(ProblemKind::BadValue, field(), why)
    })
}

/// The pod's address as the GameServer tells it (since Agones 1.40), of several the first of IPv4; else
/// as the pod tells it.
fn pod_ip(server: &GameServer, pod: Option<IpAddr>) -> Found<IpAddr> {
    match of_kind(server, POD_IP) {
        (Some(ip), _) => Ok(Some(ip)),
        (None, Some(bad)) => Err(Problem::new(
            ProblemKind::BadValue,
            "status.addresses",
            format!("{:?} is not a PodIP; expected an IP address such as 10.0.0.7", short(bad)),
        )),
        (None, None) => Ok(pod),
    }
}

/// The node's address. A name can't be the endpoint of a STATIC cluster, so that an address is looked
/// for beside it: the internal one first, as Envoy runs in the cluster.
fn node_ip(server: &GameServer) -> Found<IpAddr> {
    let text = &*server.status.address;
    if text.is_empty() {
        return Ok(None);
    }
    if let Ok(ip) = text.parse() {
        return Ok(Some(ip));
    }
    let beside = ["InternalIP", "ExternalIP"].into_iter().find_map(|kind| of_kind(server, kind).0);
    beside.map(Some).ok_or_else(|| {
        let why = format!(
            "{:?} is a name, and a route needs an IP address; give the node an InternalIP or ExternalIP, or reach servers at their pods (upstream: pod)",
            short(text)
        );
        Problem::new(ProblemKind::BadValue, "status.address", why)
    })
}

/// The best address of a type, and one of it that is none.
fn of_kind<'a>(server: &'a GameServer, kind: &str) -> (Option<IpAddr>, Option<&'a str>) {
    let texts = || server.status.addresses.iter().filter(|one| &*one.kind == kind).map(|one| &*one.address);
    let ips = texts().filter_map(|text| text.parse::<IpAddr>().ok());
    let bad = texts().find(|text| !text.is_empty() && text.parse::<IpAddr>().is_err());
    (ips.min_by_key(IpAddr::is_ipv6), bad)
}
