//! A canned run, in which every number stands once.

use super::*;
use crate::machine::Machine;
use crate::soak::record::{Drop, Mark, NewServer, Sample};
use crate::stats::Summary;

fn summary(p50: f64, p99: f64, most: f64) -> Summary {
    Summary { count: 7, least: p50, p50, p99, most }
}

fn sample(number: u64) -> Sample {
    Sample {
        at_ms: number * 1_000,
        players: 1_817,
        rtt_p50_us: Some(411),
        rtt_p99_us: Some(1_733),
        messages: 1_013,
        expected_drops: u32::from(number == 3) * 17,
        pushes: 31,
        servers: 211,
        rss_mb: if number == 1 { 41.5 } else { 43.7 },
        workers: 1,
        ..Sample::default()
    }
}

fn run() -> Run {
    let good = Lane {
        name: "tidegate".into(),
        facts: vec![("envoy".into(), "1.40.0".into())],
        samples: (1..=20).map(sample).collect(),
        marks: vec![
            Mark { at_ms: 0, what: "quiet".into(), kind: MarkKind::Phase },
            Mark { at_ms: 5_000, what: "wave: 20 more".into(), kind: MarkKind::Churn },
            Mark { at_ms: 9_000, what: "kill -9 of <the> \"control\" plane".into(), kind: MarkKind::Fault },
        ],
        drops: vec![],
        new_servers: vec![NewServer {
            at_ms: 5_000,
            server: "game-201".into(),
            phase: "churn".into(),
            took_ms: Some(23.4),
        }],
        new_server_ms: Some(summary(23.4, 23.7, 23.9)),
        rtt_quiet_us: Some(summary(401.0, 907.0, 2_003.0)),
        rtt_churn_us: Some(summary(419.0, 1_117.0, 3_001.0)),
        direct_quiet_us: Some(summary(101.0, 307.0, 503.0)),
        direct_churn_us: Some(summary(103.0, 311.0, 509.0)),
    };
    let mut bad = Lane {
        name: "nginx, <10 s>".into(),
        drops: (0..250)
            .map(|player| Drop {
                at_ms: 14_000,
                player,
                server: "game-<b>".into(),
                expected: false,
                why: "closed & gone".into(),
            })
            .collect(),
        new_servers: vec![NewServer {
            at_ms: 5_000,
            server: "game-201".into(),
            phase: "churn".into(),
            took_ms: None,
        }],
        ..good.clone()
    };
    bad.samples[13].unexpected_drops = 250;
    bad.samples[13].rtt_p50_us = None;
    bad.samples[19].rss_mb = 1_234.5;
    bad.samples[19].workers = 58;
    bad.new_server_ms = None;
    Run {
        seed: 4_711,
        settings: vec![("--players".into(), "2000".into()), ("--note".into(), "<i>".into())],
        machine: Machine {
            model: "Model & Sons".into(),
            cores: 2,
            memory_mb: 24_151,
            kernel: "6.1.0".into(),
            load_before: "0.07".into(),
        },
        lanes: vec![good, bad],
    }
}

/// Opens and closes what it should, as far as a reader of tags can tell; the names of elements in order.
fn elements(text: &str) -> Vec<String> {
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        assert!(!rest[..at].contains('>'), "a bare > in {:?}", &rest[..at]);
        let end = rest[at..].find('>').expect("a tag ends") + at;
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_ref(), Some(&name), "</{name}> closes another");
            continue;
        } else if name == "style" {
            // What stands in it is no HTML.
            rest = &rest[rest.find("</style>").expect("it ends") + "</style>".len()..];
        } else if !tag.starts_with('!') && !tag.ends_with('/') && name != "meta" {
            open.push(name.clone());
        }
        all.push(name);
    }
    assert!(open.is_empty(), "left open: {open:?}");
    all
}

#[test]
fn a_page_has_every_number_and_every_lane() {
    let page = page(&run());
    let all = elements(&page);
    let count = |name: &str| all.iter().filter(|element| *element == name).count();
    assert_eq!(count("figure"), 2 * KINDS.len());
    assert_eq!(count("svg"), 2 * KINDS.len());
    // A step a second, each with its numbers, in each picture; and the page's own.
    assert_eq!(count("title"), 20 * 2 * KINDS.len() + 1);
    for number in [
        "4711",
        "24,151 MB",
        "6.1.0",
        "0.07",
        "1.40.0",
        "<td class=\"good\">0</td>",
        "<td class=\"bad\">250</td>",
        "<td>17</td>",
        "23.4 ms",
        "23.7 ms",
        "23.9 ms",
        "401 µs",
        "907 µs",
        "419 µs",
        "1.12 ms",
        "3 ms",
        "1.23 ×",
        "20,260",
        "1,817",
        "620",
        "41.5 MB, 43.7 MB",
        "41.5 MB, 1,234 MB",
        "<td>58</td>",
        "median: 411 µs",
        "99th percentile: 1.73 ms",
        "servers: 211",
        "pushes or reloads: 31",
        "expected: 17",
        "unexpected: 250",
        "0:09 kill -9",
        "and 50 more",
    ] {
        assert!(page.contains(number), "{number} is missing");
    }
}

#[test]
fn what_broke_is_a_line_a_step_and_no_phase_is_left_out_for_it() {
    let mut run = run();
    let lane = &mut run.lanes[0];
    // Two steps of them, and a phase behind.
    lane.marks = (0..300)
        .map(|n| Mark { at_ms: 3_000 + n * 5, what: "reset".into(), kind: MarkKind::Fault })
        .chain([Mark { at_ms: 19_000, what: "the very end".into(), kind: MarkKind::Phase }])
        .collect();
    run.lanes.truncate(1);
    let page = page(&run);
    assert_eq!(page.matches("class=\"fault\"").count(), 2 * KINDS.len());
    assert_eq!(page.matches("200 × reset").count(), KINDS.len());
    assert!(page.contains("<li>0:19 the very end</li>") && page.contains("and 100 more"), "{page}");
    assert_eq!(page.matches("<li>0:0").count(), ROWS);
    assert!(page.contains("<th>faults, and their ends</th><td>300</td>"), "{page}");
}

#[test]
fn names_are_escaped_and_nothing_is_fetched() {
    let page = page(&run());
    for bad in ["<10 s>", "<the>", "game-<b>", "\"control\"", "<i>", "closed & gone", "& Sons"] {
        assert!(!page.contains(bad), "{bad}");
    }
    for good in
        ["nginx, &lt;10 s&gt;", "kill -9 of &lt;the&gt; &quot;control&quot; plane", "Model &amp; Sons"]
    {
        assert!(page.contains(good), "{good}");
    }
    let bare = page.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "//", "src=", "href=", "@import", "url(", "<script"] {
        assert!(!bare.contains(outside), "{outside}");
    }
}

#[test]
fn a_run_of_nothing_is_still_a_page() {
    let mut empty = run();
    empty.lanes = vec![Lane { name: "nginx".into(), ..Lane::default() }];
    elements(&page(&empty));
    empty.lanes = vec![];
    elements(&page(&empty));
}

#[test]
fn pictures_name_every_lane_with_its_figure() {
    let run = run();
    let folder = tempfile::tempdir().unwrap();
    pictures(&run, folder.path()).unwrap();
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    let (drops, new) = (read("soak-drops.svg"), read("soak-new-server.svg"));
    elements(&drops);
    elements(&new);
    assert!(drops.contains("tidegate: 0<") && drops.contains("nginx, &lt;10 s&gt;: 250<"), "{drops}");
    assert!(new.contains("tidegate: median 23.4 ms"), "{new}");
    assert!(drops.contains("prefers-color-scheme: dark"));
}

#[test]
fn a_record_is_the_same_after_its_file() {
    let run = run();
    let text = serde_json::to_string(&run).unwrap();
    let again: Run = serde_json::from_str(&text).unwrap();
    assert_eq!(page(&again), page(&run));
}
