//! Where a cluster leads, read back from its bytes: asked when one changed under its players, which is rare.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Address;
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use prost::Message;

use crate::snapshot::Resource;

/// True when two contents of a cluster lead to the same addresses. What can't be read leads nowhere.
pub fn is_same_place(one: &Resource, other: &Resource) -> bool {
    let addresses = |resource: &Resource| {
        let cluster = Cluster::decode(resource.content()).ok()?;
        let localities = cluster.load_assignment?.endpoints.into_iter();
        let endpoints = localities.flat_map(|locality| locality.lb_endpoints);
        Some(endpoints.filter_map(|endpoint| endpoint.host_identifier).map(address_of).collect::<Vec<_>>())
    };
    let place = addresses(one);
    place.is_some() && place == addresses(other)
}

fn address_of(host: HostIdentifier) -> Option<Address> {
    match host {
        HostIdentifier::Endpoint(endpoint) => endpoint.address,
        HostIdentifier::EndpointName(_) => None,
    }
}
