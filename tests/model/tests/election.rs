//! One candidate at a time is at work, whatever hangs or is lost; and what an election needs for that.

use azmutex_model::election::{Election, HANG_ENDS, Mistake, ONE_AT_WORK};
use azmutex_model::{check, counterexample};

fn holds(candidates: u8) {
    let report = check(Election {
        candidates,
        mistake: None,
    });
    println!("{candidates} candidates\n    {report}");
    assert_eq!(report.violated, [""; 0]);
    assert_eq!(report.unreached, [""; 0]);
}

fn is_caught(mistake: Mistake, property: &'static str) {
    let wrong = Election {
        candidates: 2,
        mistake: Some(mistake),
    };
    let (steps, states) = counterexample(wrong, property);
    let steps = steps.unwrap_or_else(|| panic!("{mistake:?} is not caught in {states} states"));
    println!(
        "{mistake:?}: not \"{property}\" after {} steps, {states} states: {}",
        steps.len(),
        steps.join(" ")
    );
}

#[test]
fn one_of_two_candidates_is_at_work_at_a_time() {
    holds(2);
}

#[test]
fn one_of_three_candidates_is_at_work_at_a_time() {
    holds(3);
}

#[test]
fn lease_that_is_renewed_while_the_work_hangs_is_caught() {
    is_caught(Mistake::NoHealth, HANG_ENDS);
}

#[test]
fn leader_that_resigns_before_its_work_has_ended_is_caught() {
    is_caught(Mistake::ReleasesFirst, ONE_AT_WORK);
}

#[test]
fn work_that_nobody_ends_at_the_deadline_is_caught() {
    is_caught(Mistake::NoSupervisor, ONE_AT_WORK);
}
