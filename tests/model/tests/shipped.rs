//! The shipped lease keeps what it promises, in every state within the bounds.

use azmutex_model::property::*;
use azmutex_model::{Bounds, World, check};

const PLAIN: Bounds = Bounds::PLAIN;
const LOSS: Bounds = Bounds { losses: 1, ..PLAIN };
const FENCED: Bounds = Bounds {
    fencing: true,
    ..PLAIN
};

/// The bounds that are not those of a plain run.
fn beyond_plain(bounds: Bounds) -> String {
    let (all, plain) = (format!("{bounds:?}"), format!("{PLAIN:?}"));
    let pairs = all.split(", ").zip(plain.split(", "));
    let beyond: Vec<_> = pairs.filter(|(a, b)| a != b).map(|(a, _)| a).collect();
    format!("2 clients, {}", beyond.join(", "))
}

/// Everything holds within the bounds but `except`, and all there is to reach is reached.
fn holds(name: &str, bounds: Bounds, except: &[&str]) {
    let report = check(World {
        bounds,
        mistake: None,
    });
    println!("{name}\n    {}\n    {report}", beyond_plain(bounds));
    assert_eq!(report.violated, except, "{name}");
    assert_eq!(report.unreached, [""; 0], "{name}");
}

macro_rules! shipped_lease {
    ($($(#[$attribute:meta])* $name:ident: $bounds:expr $(, but $except:expr)?;)*) => {
        $(#[test] $(#[$attribute])* fn $name() {
            let except: [&[&str]; _] = [&[], $($except)?];
            holds(stringify!($name), $bounds, &except.concat());
        })*
    };
}

/// A holder in between can go unseen.
const UNSEEN: &[&str] = &[UNINTERRUPTED, RELEASED_WAS_HELD, LOSS_IS_REPORTED];

shipped_lease! {
    keeps_its_promises_when_processes_are_stopped_anywhere_with_clocks_at_both_ends_of_the_margin:
        Bounds { pauses: true, fast: true, ..PLAIN };
    keeps_its_promises_when_a_request_or_reply_is_lost: LOSS;
    keeps_its_promises_when_a_request_arrives_twice_in_time:
        Bounds { duplicates: 1, lateness: Bounds::IN_TIME, ..PLAIN };
    keeps_its_promises_when_a_request_arrives_at_any_time_after_it_was_given_up:
        Bounds { late: 1, ..LOSS }, but UNSEEN;
    keeps_its_promises_when_the_service_is_busy_and_a_process_dies:
        Bounds { busy: 1, deaths: 1, ..PLAIN };
    keeps_its_promises_when_everyone_asks_twice: Bounds { acquisitions: 2, ..PLAIN };
    keeps_its_promises_when_nobody_waits_for_long_and_a_reply_is_lost:
        Bounds { limit: Some(2), ..LOSS };
    keeps_its_promises_when_nobody_waits_and_a_reply_is_lost: Bounds { limit: Some(0), ..LOSS };
    keeps_its_promises_when_the_lease_is_broken_without_a_period: Bounds { breaks: 1, ..PLAIN };
    keeps_its_promises_when_the_lease_is_broken_with_a_short_period:
        Bounds { short_breaks: 1, ..PLAIN };
    keeps_its_promises_when_a_stranger_writes_to_the_blob: Bounds { strangers: 1, ..PLAIN };
    keeps_its_promises_when_the_blob_is_deleted: Bounds { deletions: 1, ..PLAIN };
    keeps_its_promises_when_renewals_end_and_the_service_answers_as_azurite_does:
        Bounds { revives: true, max_hold: Some(3), ..PLAIN };
    keeps_its_promises_when_the_work_gives_no_sign_of_life:
        Bounds { health: Some(2), ..PLAIN };
    keeps_its_promises_when_locks_get_fencing_tokens: FENCED;
    keeps_its_promises_when_holders_are_written: Bounds { holder_delay: Some(1), ..PLAIN };
    keeps_its_promises_when_writes_under_the_lease_arrive_at_any_time:
        Bounds { writes: 1, ..PLAIN };
    keeps_its_promises_when_leases_are_handed_over_in_a_process:
        Bounds { hand_overs: 2, ..PLAIN };
    keeps_its_promises_when_leases_are_handed_over_with_another_id:
        Bounds { hand_overs: 1, exposed: true, ..PLAIN };

    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_leases_are_handed_over_with_tokens:
        Bounds { hand_overs: 1, ..FENCED };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_leases_are_handed_over_with_another_id_and_a_reply_is_lost:
        Bounds { hand_overs: 1, exposed: true, ..LOSS };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_leases_are_handed_over_and_writes_arrive_at_any_time:
        Bounds { hand_overs: 1, writes: 1, ..PLAIN };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_two_requests_or_replies_are_lost: Bounds { losses: 2, ..PLAIN };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_a_request_arrives_in_time_after_it_was_given_up:
        Bounds { late: 1, lateness: Bounds::IN_TIME, ..LOSS };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_locks_get_fencing_tokens_and_a_reply_is_lost:
        Bounds { losses: 1, ..FENCED };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_locks_get_fencing_tokens_and_a_request_arrives_twice_in_time:
        Bounds { duplicates: 1, lateness: Bounds::IN_TIME, ..FENCED };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_locks_get_fencing_tokens_and_the_blob_is_deleted:
        Bounds { deletions: 1, ..FENCED };
    #[ignore = "takes long: what CI leaves out"]
    keeps_its_promises_when_locks_get_fencing_tokens_and_a_stranger_replaces_the_metadata:
        Bounds { strangers: 1, ..FENCED };
}
