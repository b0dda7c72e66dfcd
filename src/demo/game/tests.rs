use super::*;

#[test]
fn a_frame_tells_a_cell_once_however_often_it_was_painted() {
    let world = Arc::new(World::new("game0"));
    let mut seat = Seat::take(&world).expect("an empty server has a seat");
    for colour in [1, 2, 3] {
        seat.paint(colour, &[(4, 5)]).expect("a good paint");
    }
    let mut canvas = world.lock();
    let Some(ToPlayer::Frame { cells, .. }) = canvas.frame() else { panic!("no frame") };
    assert_eq!(cells, [(4, 5, 3)]);
    assert!(canvas.frame().is_none());
}

#[test]
fn a_paint_that_breaks_a_rule_paints_nothing() {
    let world = Arc::new(World::new("game0"));
    let mut seat = Seat::take(&world).expect("an empty server has a seat");
    assert!(seat.paint(COLOURS, &[(0, 0)]).is_err());
    assert!(seat.paint(1, &[(0, 0), (WIDTH, 0)]).is_err());
    assert!(seat.paint(1, &[(0, HEIGHT)]).is_err());
    assert!(seat.paint(1, &[(0, 0); CELL_LIMIT + 1]).is_err());
    assert_eq!(world.lock().cells, [0; CELLS]);
}

#[test]
fn the_allowance_runs_out() {
    let mut allowance = Allowance::new(0, 3);
    assert!(allowance.spend(3));
    assert!(!allowance.spend(1));
    assert!(!allowance.spend(usize::MAX));
}

#[test]
fn a_full_server_has_no_seat_until_one_leaves() {
    let world = Arc::new(World::new("game0"));
    let mut seats: Vec<_> = (0..PLAYER_LIMIT).map_while(|_| Seat::take(&world)).collect();
    assert_eq!(seats.len(), PLAYER_LIMIT);
    assert!(Seat::take(&world).is_none());
    seats.pop();
    assert!(Seat::take(&world).is_some());
}

#[test]
fn a_cursor_stays_on_the_canvas() {
    let world = Arc::new(World::new("game0"));
    let seat = Seat::take(&world).expect("an empty server has a seat");
    seat.point(Some((-1.0, f32::INFINITY)));
    assert_eq!(world.lock().players[&seat.id].at, Some((0.0, f32::from(HEIGHT))));
}

#[test]
fn two_hundred_players_have_names_of_their_own() {
    let names: BTreeSet<_> = (1..=200).map(|id| Player::new(id).name).collect();
    assert_eq!(names.len(), 200);
}

#[test]
fn a_server_name_cannot_break_the_page() {
    assert_eq!(escape(r#"<b>&""#), "&lt;b&gt;&amp;&quot;");
}
