//! Pictures on a terminal that is a buffer.

use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode};
use ringcached::base::histogram::{Histogram, Snapshot};

use super::super::state::{Act, State};
use super::super::view::View;
use crate::client::{Class, Error, Figure, Reading, Sample};

fn figures(values: &[(&str, u64)]) -> Vec<Figure> {
    let figure = |(name, value): &(&str, u64)| Figure {
        name: (*name).into(),
        is_gauge: false,
        value: *value,
    };
    values.iter().map(figure).collect()
}

/// A server that so often has done the same things, one second each.
fn reading(boot_id: u64, times: u64) -> Reading {
    let gets = Histogram::default();
    gets.record(900, 99 * times);
    gets.record(70_000, times);
    let mut spread = Snapshot::default();
    spread.add(&gets);
    let process = figures(&[
        ("cmd_get", 100 * times),
        ("get_hits", 75 * times),
        ("get_misses", 25 * times),
        ("requests", 100 * times),
        ("page_bytes", 1 << 20),
        ("throttle_parked", 3),
    ]);
    let ring = |requests: u64, turns: u64| {
        figures(&[
            ("requests", requests * times),
            ("ring_turns", turns * times),
            ("ring_completions", 2 * turns * times),
            ("busy_us", 250_000 * times),
            ("busy_at_us", 1_000_000 * times),
            ("waited_us", 50_000 * times),
            ("cpu", 3),
            ("curr_connections", 7),
        ])
    };
    let worker = figures(&[("batches_queued", 4 * times), ("busy_us", 500_000 * times)]);
    let class =
        |slot_bytes, pages| Class { slot_bytes, pages, slots: 10 * pages, slots_free: pages };
    Reading {
        sample: Sample {
            boot_id,
            sequence: times,
            elapsed_ns: times * 1_000_000_000,
            figures: process,
        },
        threads: vec![
            ("ring 0".into(), ring(90, 9)),
            ("ring 1".into(), ring(1000, 20)),
            ("worker 0".into(), worker),
            ("admin".into(), figures(&[])),
        ],
        spreads: vec![("get".into(), spread), ("store".into(), Snapshot::default())],
        classes: vec![class(96, 0), class(112, 5), class(128, 12)],
    }
}

fn state() -> State {
    let mut state = State::new("127.0.0.1:21211", Duration::from_secs(1));
    state.learn(Ok(reading(1, 1)));
    state.learn(Ok(reading(1, 2)));
    state
}

fn picture(state: &State, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| super::draw(frame, state)).unwrap();
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(width));
    lines.map(|line| line.iter().map(|cell| cell.symbol()).collect()).collect()
}

/// The words of the line that has all of these among them.
#[track_caller]
fn line(picture: &[String], with: &str) -> Vec<String> {
    let found = picture.iter().find(|line| line.contains(with));
    let found = found.unwrap_or_else(|| panic!("no {with} in {picture:#?}"));
    found.split_whitespace().map(|word| word.trim_matches('│').to_owned()).collect()
}

fn press(state: &mut State, key: KeyCode) -> Act {
    state.hear(&Event::Key(key.into()))
}

#[test]
fn everything_is_there() {
    let picture = picture(&state(), 120, 40);
    assert!(picture[0].contains("127.0.0.1:21211") && picture[0].contains("every 1 s"));
    assert!(picture[39].starts_with("q quit"), "{}", picture[39]);
    assert!(line(&picture, "requests/s").join(" ").contains("requests/s 100"));
    assert!(line(&picture, "hits %").join(" ").contains("hits % 75.0"));
    assert!(line(&picture, "throttled").join(" ").contains("throttled 3"));
    let words = |with| line(&picture, with).join(" ").trim().to_owned() + " ";
    assert_eq!(words("get "), "get 100 959 ns 959 ns 959 ns 73.7 us 73.7 us ");
    assert_eq!(words("store "), "store 0.0 - - - - - ");
    assert!(
        words("ring 0").starts_with("ring 0 7 90.0 - 9.0 2.0 10.0 25.0 5.0 3 "),
        "{}",
        words("ring 0")
    );
    assert!(
        words("worker 0").starts_with("worker 0 - - 4.0 - - - 50.0 - "),
        "{}",
        words("worker 0")
    );
    assert_eq!(words(" 112 "), "112 5 5.0M 50 45 90.0 ");
    assert!(!picture.iter().any(|line| line.contains(" 96 ") || line.contains("admin")));
}

#[test]
fn keys_choose_table_column_and_direction() {
    let mut state = state();
    let order = |state: &State| {
        let picture = picture(state, 120, 40);
        let place = |with: &str| picture.iter().position(|line| line.contains(with)).unwrap();
        place("ring 0") < place("ring 1")
    };
    assert_eq!(press(&mut state, KeyCode::Tab), Act::Nothing);
    for _ in 0..3 {
        assert_eq!(press(&mut state, KeyCode::Right), Act::Nothing);
    }
    assert!(order(&state), "requests, ascending");
    assert!(picture(&state, 120, 40).iter().any(|line| line.contains("req/s↑")));
    assert_eq!(press(&mut state, KeyCode::Char('r')), Act::Nothing);
    assert!(!order(&state));
    assert!(picture(&state, 120, 40).iter().any(|line| line.contains("req/s↓")));
    for _ in 0..3 {
        assert_eq!(press(&mut state, KeyCode::Left), Act::Nothing);
    }
    assert!(order(&state), "as the server has them");
    assert_eq!(press(&mut state, KeyCode::Down), Act::Nothing);
    assert!(!picture(&state, 120, 40).iter().any(|line| line.contains("ring 0")));
    for _ in 0..9 {
        assert_eq!(press(&mut state, KeyCode::PageDown), Act::Nothing);
    }
    assert!(
        picture(&state, 120, 40).iter().any(|line| line.contains("worker 0")),
        "the last stays"
    );
}

#[test]
fn keys_change_the_pace_and_end() {
    let mut state = state();
    assert_eq!(press(&mut state, KeyCode::Char('+')), Act::Pace(Duration::from_millis(500)));
    assert_eq!(press(&mut state, KeyCode::Char('-')), Act::Pace(Duration::from_secs(1)));
    for _ in 0..PACES {
        let _ = press(&mut state, KeyCode::Char('-'));
    }
    assert_eq!(press(&mut state, KeyCode::Char('-')), Act::Nothing);
    assert_eq!(state.interval, Duration::from_secs(60));
    assert_eq!(press(&mut state, KeyCode::Char('q')), Act::Quit);
    assert_eq!(press(&mut state, KeyCode::Esc), Act::Quit);
    assert_eq!(state.hear(&Event::Resize(3, 3)), Act::Nothing);
}

/// More than there are intervals.
const PACES: usize = 20;

#[test]
fn any_size_is_drawn() {
    let (state, empty) = (state(), State::new("x", Duration::from_secs(1)));
    for (width, height) in [(1, 1), (3, 200), (200, 3), (20, 8), (60, 20), (80, 24), (300, 100)] {
        assert_eq!(picture(&state, width, height).len(), usize::from(height));
        assert_eq!(picture(&empty, width, height).len(), usize::from(height));
    }
    let small = picture(&state, 80, 20);
    assert!(small.iter().any(|line| line.contains("Latency")));
    assert!(!small.iter().any(|line| line.contains("Rings and workers")), "{small:#?}");
}

#[test]
fn a_server_that_goes_leaves_its_last_picture_and_one_that_comes_begins_anew() {
    let mut state = state();
    state.learn(Err(Error::Refused));
    let gone = picture(&state, 120, 40);
    assert!(gone[0].contains("no ringcached answers there"), "{}", gone[0]);
    assert!(gone.iter().any(|line| line.contains("requests/s")));
    state.learn(Ok(reading(2, 1)));
    let back = picture(&state, 120, 40);
    assert!(back[0].contains("the server has restarted"), "{}", back[0]);
    assert!(back[1].contains("waiting"), "no rate spans the restart: {}", back[1]);
    state.learn(Ok(reading(2, 3)));
    let fine = picture(&state, 120, 40);
    assert!(!fine[0].contains("restarted") && fine.iter().any(|line| line.contains("requests/s")));
}

#[test]
fn a_pause_keeps_the_picture() {
    let mut state = state();
    assert_eq!(press(&mut state, KeyCode::Char('p')), Act::Nothing);
    let mut more = reading(1, 3);
    more.sample.figures[3].value += 1000;
    state.learn(Ok(more));
    let paused = picture(&state, 120, 40);
    assert!(paused[0].contains("paused"));
    assert!(line(&paused, "requests/s").join(" ").contains("requests/s 100 "));
}

#[test]
fn readings_of_two_processes_or_one_moment_are_no_view() {
    assert!(View::between(&reading(1, 1), &reading(2, 2)).is_none());
    assert!(View::between(&reading(1, 1), &reading(1, 1)).is_none());
    assert!(View::between(&reading(1, 2), &reading(1, 1)).is_none());
}
