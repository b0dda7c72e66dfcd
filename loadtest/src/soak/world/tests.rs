use super::*;

struct Everywhere;

impl Addresses for Everywhere {
    fn of(&self, server: u32) -> Option<SocketAddr> {
        Some(SocketAddr::from(([127, 64, 0, u8::try_from(server).unwrap()], 7000)))
    }

    fn rival(&self) -> SocketAddr {
        SocketAddr::from(([127, 63, 0, 1], 7000))
    }
}

/// What the control plane reads in a file, without what it has to say.
fn read(file: &File) -> Vec<std::sync::Arc<tidegate::model::Server>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(&file.name);
    std::fs::write(&path, file.text.as_ref().unwrap()).unwrap();
    let read = tidegate::sources::files::read_paths(&[path], &tidegate::kinds::Rules::default(), 1);
    read.servers.into_iter().map(|found| found.server).collect()
}

#[test]
fn a_touch_changes_the_file_and_not_the_server_and_an_edit_both() {
    let mut world = World::of(3);
    let before = world.file(1, &Everywhere);
    let server = read(&before);
    assert_eq!(server.len(), 1);
    for _ in 0..3 {
        world.apply(Change::Touch(1));
        let file = world.file(1, &Everywhere);
        assert_ne!(file, before);
        assert_eq!(read(&file), server);
    }
    for change in [
        Change::Edit(1),
        Change::Edit(1),
        Change::Move(1),
        Change::Close(1, Door::Drained),
        Change::Close(1, Door::Draining),
        Change::Close(1, Door::Maintenance),
        Change::Close(1, Door::Misconfigured),
    ] {
        world.apply(Change::Open(1));
        let before = read(&world.file(1, &Everywhere));
        world.apply(change);
        assert_ne!(read(&world.file(1, &Everywhere)), before, "{change:?}");
    }
}

#[test]
fn players_are_sent_where_the_door_is_open() {
    let mut world = World::of(SHARED + 1);
    let hosts = |world: &World| world.targets().into_iter().map(|t| t.host).collect::<Vec<_>>();
    assert_eq!(hosts(&world).len(), 23, "21 hosts and two lobbies");
    world.apply(Change::Close(1, Door::Drained));
    world.apply(Change::Move(2));
    world.apply(Change::Leave(0));
    let hosts = hosts(&world);
    assert!(hosts.contains(&"game-2-m1.soak.localhost".to_owned()), "{hosts:?}");
    assert_eq!(hosts.len(), 20, "not game-1, not game-0 and its lobby");
    assert_eq!(world.routes(&Everywhere).len(), 20);
    assert_eq!(hosts.iter().filter_map(|host| server_of(host)).max(), Some(20));
    assert_eq!(server_of("lobby-1.soak.localhost"), None);
}

#[test]
fn what_is_bad_is_bad_until_it_is_tidied() {
    let mut world = World::of(2);
    for change in
        [Change::Garble(0), Change::Misspell(1), Change::Litter(7), Change::Rival { rival: 3, of: 1 }]
    {
        world.apply(change);
    }
    assert!(read(&world.file(0, &Everywhere)).is_empty());
    assert_eq!(world.files(Change::Litter(7), &Everywhere)[0].name, "soak-litter-7.yaml");
    let tidy = world.tidy();
    assert_eq!(tidy.len(), 4);
    for change in tidy {
        world.apply(change);
        let gone = matches!(change, Change::Clear(_) | Change::Yield(_));
        assert_eq!(world.files(change, &Everywhere)[0].text.is_none(), gone, "{change:?}");
    }
    assert_eq!(read(&world.file(0, &Everywhere)).len(), 1);
    assert!(world.tidy().is_empty());
}
