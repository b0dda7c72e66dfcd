//! The lives of OpenKruiseGame's servers as a watch tells them, object by object.
use super::*;
use crate::kinds::{Fleet, Key, Object, Sources};
use crate::model::Event;

struct Watch {
    fleet: Fleet,
}

impl Watch {
    fn new(rules: Rules) -> Self {
        Self { fleet: Fleet::new(rules, Sources { okg: SOURCE, agones: Source("agones") }) }
    }

    /// The postio set with pods and GameServers of these numbers, all in play.
    fn playing(numbers: impl IntoIterator<Item = u32>) -> Self {
        let mut watch = Self::new(rules());
        watch.put(Kind::GameServerSet, set_json());
        for number in numbers {
            watch.put(Kind::Pod, pod_json(number));
            watch.put(Kind::OkgGameServer, game_server_json(number));
        }
        watch
    }

    /// A new version of an object; what it changes, a line each.
    fn put(&mut self, kind: Kind, object: Value) -> Vec<String> {
        let object = Object::decode(kind, object).expect("an object");
        told(&self.fleet.put(object))
    }

    fn remove(&mut self, kind: Kind, name: &str) -> Vec<String> {
        told(&self.fleet.remove(&Key { kind, namespace: "default".into(), name: name.into() }))
    }

    fn pod(&mut self, number: u32, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut pod = pod_json(number);
        change(&mut pod);
        self.put(Kind::Pod, pod)
    }

    fn server(&mut self, number: u32, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut server = game_server_json(number);
        change(&mut server);
        self.put(Kind::OkgGameServer, server)
    }

    fn set(&mut self, change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut set = set_json();
        change(&mut set);
        self.put(Kind::GameServerSet, set)
    }
}

fn told(events: &[Event]) -> Vec<String> {
    let event = |event: &Event| match event {
        Event::Upsert(server) => {
            assert_eq!(server.problems, [], "{server:?}");
            format!("+{}", line(server))
        }
        Event::Remove(id) => format!("-{}", id.name()),
        other => panic!("{other:?}"),
    };
    events.iter().map(event).collect()
}

const NOTHING: [&str; 0] = [];

fn label(pod: &mut Value, key: &str, value: &str) {
    pod["metadata"]["labels"][key] = value.into();
}

fn lifecycle(pod: &mut Value, state: &str) {
    label(pod, "lifecycle.apps.kruise.io/state", state);
}

/// A pod that was made a moment ago: no address, no label of a controller yet.
fn newborn(pod: &mut Value) {
    pod["status"] = json!({ "phase": "Pending" });
    pod["metadata"]["labels"] = json!({
        "game.kruise.io/owner-gss": "postio",
        "lifecycle.apps.kruise.io/state": "Normal",
        "apps.kubernetes.io/pod-index": pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"],
    });
    let annotations = pod["metadata"]["annotations"].as_object_mut().expect("annotations");
    annotations.remove("game.kruise.io/network-status");
}

fn readiness(pod: &mut Value, game: bool, logs: bool, gate: bool) {
    let word = |is: bool| if is { "True" } else { "False" };
    pod["status"]["containerStatuses"] =
        json!([{ "name": "postio", "ready": game }, { "name": "logs", "ready": logs }]);
    pod["status"]["conditions"] = json!([
        { "type": "ContainersReady", "status": word(game && logs) },
        { "type": "InPlaceUpdateReady", "status": word(gate) },
        { "type": "Ready", "status": word(game && logs && gate) },
    ]);
}

#[test]
fn scale_up() {
    let mut watch = Watch::playing(0..3);
    assert_eq!(watch.set(|set| set["spec"]["replicas"] = 5.into()), NOTHING);
    assert_eq!(watch.pod(3, newborn), ["+postio-3 - starting game3.postio.example.com"]);
    assert_eq!(watch.server(3, |_| ()), NOTHING);
    let labelled = |pod: &mut Value| {
        newborn(pod);
        label(pod, "game.kruise.io/gs-state", "Creating");
        label(pod, "game.kruise.io/gs-opsState", "None");
        label(pod, "game.kruise.io/network-disabled", "false");
        annotate(pod, "game.kruise.io/network-status", "{\"currentNetworkState\":\"NotReady\"}");
    };
    assert_eq!(watch.pod(3, labelled), NOTHING);
    let scheduled = |pod: &mut Value| {
        labelled(pod);
        pod["spec"]["nodeName"] = "node".into();
    };
    assert_eq!(watch.pod(3, scheduled), NOTHING);
    assert_eq!(watch.pod(3, |pod| readiness(pod, false, true, false)), [format!("+{STARTING}")]);
    assert_eq!(watch.pod(3, |pod| readiness(pod, true, true, false)), [format!("+{OPEN}")]);
    assert_eq!(
        watch.pod(3, |_| ()),
        NOTHING,
        "the pod's own readiness, and OpenKruiseGame's labels, come later"
    );
    let network_ready = |pod: &mut Value| {
        annotate(pod, "game.kruise.io/network-status", "{\"currentNetworkState\":\"Ready\"}");
    };
    assert_eq!(watch.pod(3, network_ready), NOTHING);
}

#[test]
fn scale_down_with_a_hook() {
    let mut watch = Watch::playing(0..4);
    let deleting =
        |server: &mut Value| server["metadata"]["labels"] = json!({ "game.kruise.io/gs-deleting": "true" });
    assert_eq!(watch.set(|set| set["spec"]["replicas"] = 3.into()), NOTHING);
    assert_eq!(watch.server(3, deleting), [format!("+{DRAINING}")], "before the pod knows of it");
    assert_eq!(
        watch.pod(3, |pod| lifecycle(pod, "PreparingDelete")),
        NOTHING,
        "PreDelete: players are inside"
    );
    let going = |pod: &mut Value| {
        lifecycle(pod, "PreparingDelete");
        pod["metadata"]["deletionTimestamp"] = "2026-04-23T11:00:00Z".into();
    };
    assert_eq!(watch.pod(3, going), NOTHING);
    let down = |pod: &mut Value| {
        going(pod);
        readiness(pod, false, false, true);
    };
    assert_eq!(watch.pod(3, down), NOTHING);
    assert_eq!(watch.remove(Kind::Pod, "postio-3"), ["-postio-3"]);
    assert_eq!(watch.remove(Kind::OkgGameServer, "postio-3"), NOTHING);
}

#[test]
fn pre_delete_drains_and_players_stay() {
    let mut watch = Watch::playing([3]);
    assert_eq!(watch.pod(3, |pod| lifecycle(pod, "PreparingDelete")), [format!("+{DRAINING}")]);
    assert_eq!(watch.pod(3, |_| ()), [format!("+{OPEN}")], "a hook that gives up");
}

#[test]
fn kill() {
    let mut watch = Watch::playing(0..4);
    let kill = |server: &mut Value| server["spec"]["opsState"] = "Kill".into();
    assert_eq!(watch.server(3, kill), [format!("+{DRAINING}")]);
    assert_eq!(watch.pod(3, |pod| label(pod, "game.kruise.io/gs-opsState", "Kill")), NOTHING);
    assert_eq!(
        watch.set(|set| set["spec"]["replicas"] = 2.into()),
        NOTHING,
        "OpenKruiseGame lowers it itself"
    );
    assert_eq!(watch.remove(Kind::Pod, "postio-3"), ["-postio-3"]);
    assert_eq!(watch.remove(Kind::OkgGameServer, "postio-3"), NOTHING);
}

#[test]
fn reserved_ids_move_servers_to_other_numbers() {
    let mut watch = Watch::playing(0..3);
    assert_eq!(watch.set(|set| set["spec"]["reserveGameServerIds"] = json!([1])), NOTHING);
    assert_eq!(watch.pod(3, |_| ()), [format!("+{OPEN}")]);
    assert_eq!(
        watch.pod(1, |pod| pod["metadata"]["deletionTimestamp"] = "2026-04-23T11:00:00Z".into()),
        ["+postio-1 10.1.2.1:5000 draining game1.postio.example.com"]
    );
    assert_eq!(watch.remove(Kind::Pod, "postio-1"), ["-postio-1"]);
}

#[test]
fn an_update_of_a_sidecar_in_place_is_no_event() {
    let mut watch = Watch::playing([3]);
    let revision = |pod: &mut Value| label(pod, "controller-revision-hash", "postio-new");
    assert_eq!(watch.pod(3, |pod| readiness(pod, true, true, false)), NOTHING);
    let updating = |pod: &mut Value| {
        revision(pod);
        lifecycle(pod, "Updating");
        label(pod, "game.kruise.io/gs-state", "Updating");
        pod["metadata"]["annotations"]["apps.kruise.io/inplace-update-state"] =
            "{\"revision\":\"postio-new\"}".into();
        readiness(pod, true, false, false);
    };
    assert_eq!(watch.pod(3, updating), NOTHING);
    let back = |pod: &mut Value| {
        revision(pod);
        lifecycle(pod, "Updated");
        pod["status"]["containerStatuses"][1]["restartCount"] = 1.into();
    };
    assert_eq!(watch.pod(3, back), NOTHING);
    assert_eq!(watch.pod(3, revision), NOTHING);
}

#[test]
fn an_update_of_the_game_in_place_keeps_its_address() {
    let mut watch = Watch::playing([3]);
    assert_eq!(watch.pod(3, |pod| lifecycle(pod, "PreparingUpdate")), [format!("+{DRAINING}")]);
    let updating = |pod: &mut Value| {
        lifecycle(pod, "Updating");
        readiness(pod, false, true, false);
    };
    assert_eq!(watch.pod(3, updating), [format!("+{STARTING}")]);
    assert_eq!(watch.pod(3, |pod| readiness(pod, true, true, false)), [format!("+{OPEN}")]);
}

#[test]
fn a_pod_made_again_has_the_new_address_or_none() {
    let mut watch = Watch::playing([3]);
    let going = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = "2026-04-23T11:00:00Z".into();
    assert_eq!(watch.pod(3, going), [format!("+{DRAINING}")]);
    assert_eq!(watch.remove(Kind::Pod, "postio-3"), ["-postio-3"]);
    let next = |pod: &mut Value| {
        newborn(pod);
        pod["metadata"]["uid"] = "next".into();
    };
    assert_eq!(watch.pod(3, next), ["+postio-3 - starting game3.postio.example.com"]);
    let ready = |pod: &mut Value| {
        pod["metadata"]["uid"] = "next".into();
        pod["status"]["podIP"] = "10.1.9.9".into();
    };
    assert_eq!(watch.pod(3, ready), ["+postio-3 10.1.9.9:5000 open game3.postio.example.com"]);
}

#[test]
fn a_watch_may_miss_the_moment_between_two_pods() {
    let mut watch = Watch::playing([3]);
    let next = |pod: &mut Value| {
        newborn(pod);
        pod["metadata"]["uid"] = "next".into();
    };
    assert_eq!(
        watch.pod(3, next),
        ["+postio-3 - starting game3.postio.example.com"],
        "never the old address"
    );
}

#[test]
fn a_fixed_name_is_kept_while_its_pod_is_away() {
    let fixed = |set: &mut Value| {
        let conf = set["spec"]["network"]["networkConf"].as_array_mut().expect("a list");
        conf.push(json!({ "name": "Fixed", "value": "true" }));
        set["spec"]["replicas"] = 2.into();
    };
    let mut watch = Watch::new(rules());
    let away = |number: u32| format!("+postio-{number} - starting game{number}.postio.example.com");
    let here =
        |number: u32| format!("+postio-{number} 10.1.2.{number}:5000 open game{number}.postio.example.com");
    assert_eq!(watch.set(fixed), [away(0), away(1)]);
    assert_eq!(watch.pod(0, |_| ()), [here(0)]);
    assert_eq!(watch.pod(1, |_| ()), [here(1)]);
    assert_eq!(watch.remove(Kind::Pod, "postio-1"), [away(1)]);
    assert_eq!(watch.pod(1, |_| ()), [here(1)]);
    let with = |replicas: u32| {
        move |set: &mut Value| {
            fixed(set);
            set["spec"]["replicas"] = replicas.into();
        }
    };
    assert_eq!(watch.set(with(3)), [away(2)], "only what is new is told");
    assert_eq!(watch.set(with(1)), ["-postio-2"], "postio-1 has a pod yet");
    assert_eq!(watch.remove(Kind::Pod, "postio-1"), ["-postio-1"]);
    assert_eq!(watch.remove(Kind::Pod, "postio-0"), [away(0)]);
    assert_eq!(watch.remove(Kind::GameServerSet, "postio"), ["-postio-0"]);
}

#[test]
fn a_crash_keeps_the_name_and_loses_the_address() {
    let mut watch = Watch::playing([3]);
    assert_eq!(
        watch.pod(3, |pod| pod["status"]["phase"] = "Failed".into()),
        ["+postio-3 - starting game3.postio.example.com"]
    );
    let mut watch = Watch::playing([3]);
    assert_eq!(
        watch.pod(3, |pod| readiness(pod, false, true, true)),
        [format!("+{STARTING}")],
        "a container's crash"
    );
}

#[test]
fn a_game_server_made_again_around_its_pod_changes_nothing() {
    let mut watch = Watch::playing([3]);
    assert_eq!(watch.remove(Kind::OkgGameServer, "postio-3"), NOTHING);
    assert_eq!(watch.server(3, |server| server["metadata"]["uid"] = "again".into()), NOTHING);

    // One that is in maintenance stays so by the pod's label, until the new GameServer says otherwise.
    let mut watch = Watch::playing([3]);
    assert_eq!(
        watch.server(3, |server| server["spec"]["opsState"] = "Maintaining".into()),
        [format!("+{DRAINING}")]
    );
    assert_eq!(watch.pod(3, |pod| label(pod, "game.kruise.io/gs-opsState", "Maintaining")), NOTHING);
    assert_eq!(watch.remove(Kind::OkgGameServer, "postio-3"), NOTHING);
    assert_eq!(watch.server(3, |_| ()), [format!("+{OPEN}")]);
}

#[test]
fn network_disabled() {
    let mut watch = Watch::playing([3]);
    assert_eq!(
        watch.server(3, |server| server["spec"]["networkDisabled"] = true.into()),
        [format!("+{DRAINING}")]
    );
    assert_eq!(watch.pod(3, |pod| label(pod, "game.kruise.io/network-disabled", "true")), NOTHING);
    assert_eq!(watch.server(3, |_| ()), [format!("+{OPEN}")], "its spec is nearer than the label");
    assert_eq!(watch.pod(3, |_| ()), NOTHING);
}

#[test]
fn ops_states() {
    let mut watch = Watch::playing([3]);
    for state in ["WaitToBeDeleted", "Allocated", "None", "DataMaintaining"] {
        assert_eq!(watch.server(3, |server| server["spec"]["opsState"] = state.into()), NOTHING, "{state}");
        assert_eq!(watch.pod(3, |pod| label(pod, "game.kruise.io/gs-opsState", state)), NOTHING, "{state}");
    }
    assert_eq!(
        watch.server(3, |server| server["spec"]["opsState"] = "Maintaining".into()),
        [format!("+{DRAINING}")]
    );
    assert_eq!(watch.pod(3, |pod| label(pod, "game.kruise.io/gs-opsState", "Maintaining")), NOTHING);
}

#[test]
fn with_open_kruise_game_down_the_kubelet_is_enough() {
    let mut watch = Watch::playing([3]);
    let labels = json!({ "game.kruise.io/owner-gss": "postio", "game.kruise.io/gs-state": "Ready" });
    let stale = |pod: &mut Value| pod["metadata"]["labels"] = labels.clone();
    assert_eq!(watch.pod(3, stale), NOTHING);
    assert_eq!(
        watch.pod(3, |pod| {
            stale(pod);
            readiness(pod, false, true, true);
        }),
        [format!("+{STARTING}")]
    );
    assert_eq!(watch.pod(3, stale), [format!("+{OPEN}")]);
}

#[test]
fn a_set_is_annotated_and_every_server_moves() {
    let mut watch = Watch::playing(0..2);
    let mut moved = watch.set(|set| annotate(set, "tidegate.dev/host", "<id>.new.example.com"));
    moved.sort();
    assert_eq!(
        moved,
        ["+postio-0 10.1.2.0:5000 open 0.new.example.com", "+postio-1 10.1.2.1:5000 open 1.new.example.com"]
    );
    let host = |server: &mut Value| annotate(server, "tidegate.dev/host", "mine.example.com");
    assert_eq!(watch.server(1, host), ["+postio-1 10.1.2.1:5000 open mine.example.com"]);
}

#[test]
fn a_pod_of_our_own_type_waits_for_its_status() {
    let mut watch = Watch::new(rules());
    watch.pod(3, |pod| set_type(pod, "Tidegate"));
    let touched = watch.fleet.touched();
    let [(_, Some(subject))] = &touched[..] else { panic!("{touched:?}") };
    let network = subject.network.as_ref().expect("its network is ours");
    assert_eq!(network.status.as_deref(), Some("{\"currentNetworkState\":\"NotReady\"}"));
    assert_eq!(
        (network.ip, network.disabled, &*network.target.uid),
        (Some([10, 1, 2, 3].into()), false, "p3")
    );
}
