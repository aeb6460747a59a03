//! Tests of the storms' checker: it finds what it is there for, and nothing else.

use crate::support::history::{Break, Finals, History, Hold, Increment, Permits, Read, Run, Write};

const MARGIN: u64 = 100;

fn hold(name: &str, token: i64, start: u64, end: u64) -> Hold {
    Hold {
        name: name.to_owned(),
        lock: 0,
        token,
        asked: start,
        start,
        end,
    }
}

fn increment(hold: usize, start: u64, end: u64, found: u64) -> Increment {
    Increment {
        hold,
        start,
        end: Some(end),
        died: None,
        found,
    }
}

fn write(value: u64, start: u64, confirmed: Option<u64>) -> Write {
    Write {
        lock: 0,
        value,
        start,
        confirmed,
    }
}

fn broken(sent: u64, answered: u64) -> Break {
    Break {
        lock: 0,
        sent,
        answered,
    }
}

/// Two holders, one after the other, who did everything right.
fn right() -> History {
    History {
        holds: vec![hold("a", 10, 1000, 2000), hold("b", 11, 2001, 3000)],
        increments: vec![
            increment(0, 1000, 1010, 0),
            increment(0, 1500, 1599, 1),
            increment(1, 2001, 2020, 2),
        ],
        writes: vec![write(1, 1100, Some(1110)), write(2, 2100, Some(2110))],
        reads: vec![Read {
            lock: 0,
            value: 1,
            start: 2050,
            end: 2060,
        }],
        finals: [(
            0,
            Finals {
                counter: 3,
                value: 2,
            },
        )]
        .into(),
        breaks: Vec::new(),
        ..History::default()
    }
}

#[track_caller]
fn finds(history: &History, what: &str) {
    let (_, wrong) = history.check(MARGIN);
    assert!(
        wrong.iter().any(|line| line.contains(what)),
        "{what:?} is not in {wrong:#?}"
    );
}

#[track_caller]
fn finds_nothing(history: &History) {
    let (_, wrong) = history.check(MARGIN);
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn history_without_a_fault_is_right() {
    finds_nothing(&right());
    let (totals, _) = right().check(MARGIN);
    assert_eq!((totals.holds, totals.increments, totals.loose), (2, 3, 0));
}

#[test]
fn two_claims_at_a_time_are_found() {
    let mut history = right();
    history.holds[0].end = 2002;
    finds(&history, "b claimed it from 2001, a claimed it until 2002");
}

#[test]
fn claim_within_a_longer_one_is_found() {
    let mut history = right();
    history.holds[0].end = 9000;
    history.holds.push(hold("c", 12, 5000, 6000));
    finds(&history, "c claimed it from 5000");
}

#[test]
fn claim_is_checked_up_to_a_break_only() {
    let mut history = right();
    history.holds[0].end = 2500;
    history.breaks.push(broken(1900, 1950));
    finds_nothing(&history);
    history.breaks[0].sent = 2100;
    history.breaks[0].answered = 2200;
    finds(&history, "claimed it until 2100");
}

#[test]
fn break_of_another_lock_excuses_nothing() {
    let mut history = right();
    history.holds[0].end = 2500;
    history.breaks.push(broken(1900, 1950));
    history.breaks[0].lock = 1;
    finds(&history, "b claimed it from 2001");
}

#[test]
fn token_that_is_not_greater_is_found() {
    let mut history = right();
    history.holds[1].token = 9;
    finds(&history, "b got the token 9 after 10");
    history.holds[1].token = 10;
    finds(&history, "b got the token 10 again");
}

#[test]
fn lost_increment_is_found() {
    let mut history = right();
    history.increments[2].found = 1;
    finds(&history, "b found the count 1 at 2001, expected 2");
    let mut history = right();
    history.finals.get_mut(&0).unwrap().counter = 2;
    finds(&history, "the count is 2 in the end, expected 3");
}

#[test]
fn increments_at_the_same_time_are_found() {
    let mut history = right();
    history.increments[1] = increment(0, 1005, 1015, 1);
    finds(&history, "a counted from 1005, and another until 1010");
}

#[test]
fn increment_that_took_longer_than_the_margin_may_take_the_place_of_others() {
    let mut history = right();
    // It found 1, was stopped, and wrote 2 over the 3 of another.
    history.increments[1].end = Some(2500);
    history.increments[2].found = 1;
    history.increments.push(increment(1, 2510, 2520, 2));
    finds_nothing(&history);
    let (totals, _) = history.check(MARGIN);
    assert_eq!(totals.loose, 1);
    // But only with what it wrote.
    history.increments[2].found = 0;
    finds(&history, "b found the count 0");
}

#[test]
fn increment_of_a_killed_process_may_be_there_or_not() {
    for counted in [true, false] {
        let mut history = right();
        history.increments[1].end = None;
        history.increments[1].died = Some(1600);
        history.increments[2].found = if counted { 2 } else { 1 };
        history.finals.get_mut(&0).unwrap().counter = if counted { 3 } else { 2 };
        finds_nothing(&history);
    }
    let mut history = right();
    history.increments[1].end = None;
    history.increments[1].died = Some(1600);
    history.increments.push(increment(1, 2500, 2510, 2));
    finds(&history, "b found the count 2 at 2500, expected 3");
}

#[test]
fn value_that_goes_back_is_found() {
    let mut history = right();
    history.reads[0].value = 0;
    finds(&history, "the value 0 was read at 2050, after 1");
    let mut history = right();
    history.finals.get_mut(&0).unwrap().value = 1;
    finds(&history, "the value 1 was there in the end");
}

#[test]
fn value_that_is_written_twice_is_found() {
    let mut history = right();
    history.writes[1].value = 1;
    history.finals.get_mut(&0).unwrap().value = 1;
    finds(&history, "1 was written twice");
}

#[test]
fn unanswered_write_may_have_been_done_or_not() {
    let mut history = right();
    history.writes[1].confirmed = None;
    finds_nothing(&history);
    history.finals.get_mut(&0).unwrap().value = 1;
    finds_nothing(&history);
    history.finals.get_mut(&0).unwrap().value = 3;
    finds(&history, "nobody wrote 3");
}

#[test]
fn more_claims_than_permits_are_found() {
    let holds = [(0, 100, 200), (1, 150, 300), (2, 200, 250)].map(|(lock, start, end)| Hold {
        lock,
        ..hold("a", 1, start, end)
    });
    let mut history = History {
        holds: holds.to_vec(),
        semaphores: vec![Permits {
            locks: 0..3,
            number: 2,
        }],
        ..History::default()
    };
    let (totals, wrong) = history.check(MARGIN);
    assert_eq!((totals.most_permits, wrong), (2, vec![]));
    history.holds[2].start = 199;
    let (_, wrong) = history.check(MARGIN);
    assert_eq!(wrong, ["3 permits of 2 were claimed at 199 (locks 0..3)"]);
}

#[test]
fn work_that_is_done_before_it_is_due_is_found() {
    let run = |start, recorded| Run {
        lock: 0,
        start,
        due: start + 100,
        recorded,
    };
    let mut history = History {
        // The first one ended without a record, which the second could not know of.
        runs: vec![run(10, None), run(20, Some(30)), run(120, Some(130))],
        ..History::default()
    };
    assert_eq!(history.check(MARGIN).1, [""; 0]);
    history.runs[2].start = 119;
    let wrong = history.check(MARGIN).1;
    assert_eq!(
        wrong,
        ["lock 0: work began at 119, and was not due before 120"]
    );
}
