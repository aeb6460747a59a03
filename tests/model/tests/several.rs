//! What is made of several locks keeps what it promises, and each mistake is found.

use azmutex_model::property::*;
use azmutex_model::{Misuse, Several, Use, check_at_random, check_some, counterexample};

/// What CI affords of what takes long: so many steps from state to state, the nearest ones first.
const NEAREST: usize = 300_000;

/// And so many at random, for what is farther away.
const AT_RANDOM: usize = 200_000;
const DEPTH: usize = 80;

/// Everything holds, and all there is to reach is reached.
fn holds(name: &str, model: Several, steps: usize) {
    let report = check_some(model, steps);
    println!("{name}\n    {model:?}\n    {report}");
    assert_eq!(report.violated, [""; 0], "{name}");
    let mut unreached = report.unreached;
    if steps < usize::MAX {
        let report = check_at_random(model, AT_RANDOM, DEPTH);
        println!("    at random: {report}");
        assert_eq!(report.violated, [""; 0], "{name}");
        unreached.retain(|name| report.unreached.contains(name));
    }
    assert_eq!(unreached, [""; 0], "{name}");
}

fn is_caught(misuse: Misuse, property: &'static str, model: Several) {
    let wrong = Several {
        misuse: Some(misuse),
        ..model
    };
    let (steps, states) = counterexample(wrong, property);
    let steps = steps.unwrap_or_else(|| panic!("{misuse:?} is not caught in {states} states"));
    println!(
        "{misuse:?}: not \"{property}\" after {} steps, {states} states: {}",
        steps.len(),
        steps.join(" ")
    );
}

macro_rules! shipped {
    ($($name:ident: $model:expr, $steps:expr;)*) => {
        $(#[test] fn $name() { holds(stringify!($name), $model, $steps); })*

        mod to_the_end {
            use super::*;

            $(
                #[test]
                #[ignore = "takes long: what CI leaves out"]
                fn $name() { holds(stringify!($name), $model, usize::MAX); }
            )*
        }
    };
}

macro_rules! mistakes {
    ($($name:ident: $misuse:ident, $property:ident, $model:expr;)*) => {
        $(#[test] fn $name() { is_caught(Misuse::$misuse, $property, $model); })*
    };
}

const fn plain(of: Use) -> Several {
    Several::plain(of)
}

shipped! {
    one_permit_is_for_one_at_a_time:
        Several { attempts: 2, ..plain(Use::Semaphore(1)) }, usize::MAX;
    two_permits_are_for_two_at_a_time:
        Several { processes: 3, ..plain(Use::Semaphore(2)) }, NEAREST;
    permits_come_back_when_a_reply_is_lost_and_a_process_dies:
        Several { losses: 1, deaths: 1, ..plain(Use::Semaphore(2)) }, NEAREST;
    work_is_done_once: plain(Use::Once(None)), usize::MAX;
    work_is_done_once_when_a_reply_is_lost_and_a_process_dies:
        Several { losses: 1, deaths: 1, ..plain(Use::Once(None)) }, NEAREST;
    work_is_done_once_in_its_period:
        Several { attempts: 2, ..plain(Use::Once(Some(3))) }, NEAREST;
    late_record_of_one_who_lost_the_lease_is_refused:
        Several { losses: 1, late: 1, ..plain(Use::Once(Some(3))) }, NEAREST;
    all_locks_are_had_or_none_and_nobody_stands_still: plain(Use::All(2)), NEAREST;
    all_locks_are_had_or_none_when_a_reply_is_lost:
        Several { losses: 1, ..plain(Use::All(2)) }, NEAREST;
}

mistakes! {
    other_number_of_permits_is_caught: OtherNumber, WITHIN_PERMITS, plain(Use::Semaphore(2));
    permit_that_is_walked_away_from_is_caught: WalksAway, NO_LEASE_LEFT,
        Several { losses: 1, ..plain(Use::Semaphore(2)) };
    look_before_the_lock_alone_is_caught: LooksBeforeLockOnly, NOT_AGAIN, plain(Use::Once(None));
    record_without_the_id_is_caught: RecordsWithoutId, RECORD_REFUSED, plain(Use::Once(None));
    clock_of_a_machine_is_caught: OwnClock, NOT_AGAIN, plain(Use::Once(Some(3)));
    work_that_begins_without_a_check_is_caught: BeginsUnchecked, ALL_HELD, plain(Use::Once(None));
    locks_handed_out_without_a_check_are_caught: BeginsUnchecked, ALL_HELD, plain(Use::All(2));
    wait_with_locks_in_hand_is_caught: HoldsAndWaits, CAN_END, plain(Use::All(2));
}
