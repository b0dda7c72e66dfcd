use super::*;

#[test]
fn a_label_may_not_end_with_a_hyphen() {
    assert_eq!(Host::parse("game-.example.com"), Err(BadHost::Label(0)));
    assert_eq!(Host::parse("a.-b.example.com"), Err(BadHost::Label(1)));
    assert_eq!(Host::parse("*.a.b-"), Err(BadHost::Label(2)));
}

/// A second definition of a host, by characters and not by labels.
fn is_host(text: &str) -> bool {
    if text == "*" || text == "*." {
        return text == "*";
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    let text = text.strip_prefix("*.").unwrap_or(text);
    let mut before = '.';
    let mut run = 0;
    for c in text.chars().chain(['.']) {
        match c {
            '.' if before == '.' || before == '-' => return false,
            '.' => run = 0,
            '-' if before == '.' => return false,
            '-' | 'a'..='z' | 'A'..='Z' | '0'..='9' => run += 1,
            _ => return false,
        }
        if run > 63 {
            return false;
        }
        before = c;
    }
    true
}

#[test]
fn hosts_agree_with_a_second_definition() {
    let seed = crate::testkit::seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let alphabet = ['a', 'Z', '0', '-', '.', '*', '_', ':', '/', ' ', 'é', '.', 'b', '-'];
    for _ in 0..20_000 {
        let text: String =
            (0..random.usize(0..8)).map(|_| alphabet[random.usize(0..alphabet.len())]).collect();
        assert_eq!(Host::parse(&text).is_ok(), is_host(&text), "{text:?}, seed {seed}");
    }
}

#[test]
fn a_host_is_lower_case_and_has_no_dot_behind() {
    assert_eq!(Host::parse("GAME0.Example.com.").unwrap().as_str(), "game0.example.com");
    assert_eq!(Host::parse("game0.example.com:80"), Err(BadHost::Port));
    assert_eq!(Host::parse("game*.example.com"), Err(BadHost::Star));
    assert_eq!(Host::parse("*.*.example.com"), Err(BadHost::Star));
    assert_eq!(Host::parse("*."), Err(BadHost::Star));
    assert_eq!(Host::parse(""), Err(BadHost::Empty));
    let longest = "a.".repeat(127);
    assert_eq!(Host::parse(&longest).unwrap().as_str(), longest.trim_end_matches('.'));
    assert_eq!(Host::parse(&"a.".repeat(128)), Err(BadHost::Long));
}

#[test]
fn a_path_is_kept_as_envoy_will_see_it() {
    assert_eq!(PathPrefix::parse("/game-1/").unwrap().as_str(), "/game-1");
    assert_eq!(PathPrefix::parse("/").unwrap(), PathPrefix::root());
    assert_eq!(PathPrefix::parse("game"), Err(BadPath::Relative));
    assert_eq!(PathPrefix::parse("/a//b"), Err(BadPath::Segment));
    assert_eq!(PathPrefix::parse("//"), Err(BadPath::Segment));
    assert_eq!(PathPrefix::parse("/a/../b"), Err(BadPath::Segment));
    assert_eq!(PathPrefix::parse("/a?b"), Err(BadPath::Character('?')));
    assert_eq!(PathPrefix::parse("/a:b"), Err(BadPath::Character(':')));
    assert_eq!(PathPrefix::parse("/%41"), Err(BadPath::Character('%')));
    assert_eq!(PathPrefix::parse(&format!("/{}", "a".repeat(MAX_PATH))), Err(BadPath::Long));
}

#[test]
fn prefixes_with_one_first_segment_stand_together() {
    let mut paths: Vec<_> = ["/a-b", "/a/c", "/", "/a", "/a.b", "/a/b/c"]
        .iter()
        .map(|text| PathPrefix::parse(text).unwrap())
        .collect();
    paths.sort();
    let sorted: Vec<_> = paths.iter().map(PathPrefix::as_str).collect();
    assert_eq!(sorted, ["/", "/a", "/a/b/c", "/a/c", "/a-b", "/a.b"]);
}

#[test]
fn a_prefix_covers_whole_segments_only() {
    let path = |text| PathPrefix::parse(text).unwrap();
    assert!(path("/game-1").covers(&path("/game-1/x")));
    assert!(!path("/game-1").covers(&path("/game-10")));
    assert!(path("/").covers(&path("/x")));
    assert_eq!(path("/g").join(&path("/shop")).as_str(), "/g/shop");
}

#[test]
fn a_server_of_unknown_age_is_the_youngest() {
    assert!(Age::Since(i64::MAX) < Age::Unknown);
}

#[test]
fn a_fleet_takes_memory_only_when_the_name_does_not_say_it() {
    for (name, fleet, kept) in [
        ("arena-0", "arena", Fleet::Begins(5)),
        ("arena-0:8080", "arena", Fleet::Begins(5)),
        ("lobby-x7f2b-9k4ts", "lobby", Fleet::Begins(5)),
        ("a", "other", Fleet::Named("other".into())),
        ("a", "", Fleet::Begins(0)),
    ] {
        let of = Fleet::of(name, fleet);
        assert_eq!(of, kept, "{name}");
        let server = crate::testkit::server_with(name, &[], |server| server.fleet = of);
        assert_eq!(server.fleet(), fleet);
    }
}
