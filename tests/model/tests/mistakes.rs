//! The model has teeth: every mistake is found, and the shipped core passes where it was found.

use azmutex_model::property::*;
use azmutex_model::{Bounds, Mistake, World, counterexample};

/// The checker finds the mistake within the bounds, and nothing once it is put right.
fn is_caught(mistake: Mistake, property: &'static str, bounds: Bounds) {
    let wrong = World {
        bounds,
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

const PLAIN: Bounds = Bounds::PLAIN;
const LOSS: Bounds = Bounds { losses: 1, ..PLAIN };
const FENCED: Bounds = Bounds {
    fencing: true,
    ..PLAIN
};

macro_rules! mistakes {
    ($($name:ident: $mistake:ident, $property:ident, $bounds:expr;)*) => {
        $(#[test] fn $name() { is_caught(Mistake::$mistake, $property, $bounds); })*
    };
}

mistakes! {
    deadline_counted_from_the_reply_is_caught: DeadlineFromReply, ONE_HOLDER, PLAIN;
    renewal_counted_from_its_reply_is_caught: RenewalFromReply, ONE_HOLDER, PLAIN;
    slow_clock_without_a_margin_is_caught: NoMargin, ONE_HOLDER, PLAIN;
    acquire_used_as_renewal_is_caught: AcquireAsRenew, UNINTERRUPTED, PLAIN;
    id_used_again_after_giving_up_is_caught: IdReused, CLAIMANT_IS_HOLDER,
        Bounds { acquisitions: 2, losses: 2, late: 1, clients: 1, ..PLAIN };
    renewal_of_another_id_trusted_is_caught: OtherIdTrusted, CLAIMANT_IS_HOLDER,
        Bounds { revives: true, ..PLAIN };
    failed_renewal_taken_as_confirmed_is_caught: FailureAsSuccess, ONE_HOLDER, LOSS;
    outcome_applied_after_the_release_is_caught: OutcomeAfterRelease, CLAIMANT_IS_HOLDER, PLAIN;
    renewal_after_the_guard_is_gone_is_caught: RenewsAfterRelease, NOTHING_OUTLIVES, PLAIN;
    claim_not_checked_after_a_pause_is_caught: HeldIsRemembered, ONE_HOLDER, PLAIN;
    claim_kept_while_unproven_is_caught: UnprovenIsHeld, ONE_HOLDER, PLAIN;
    lease_of_another_broken_when_in_doubt_is_caught: BreaksWhenInDoubt, CLAIMANT_IS_HOLDER, LOSS;
    token_read_before_the_lease_is_caught: TokenReadBeforeLease, TOKENS_INCREASE, FENCED;
    token_handed_out_late_is_caught: LateTokenHandedOut, TOKENS_INCREASE, FENCED;
    token_handed_out_after_a_slow_proof_is_caught: ProvenOnce, TOKENS_INCREASE, FENCED;
    token_not_known_to_be_stored_is_caught: UnansweredTokenHandedOut, TOKENS_INCREASE,
        Bounds { losses: 1, ..FENCED };
    guarded_write_without_the_id_is_caught: WriteWithoutId, LATE_WRITE_REFUSED,
        Bounds { writes: 1, ..PLAIN };
    renewals_that_stop_are_caught: NeverRenews, HOLDER_CAN_KEEP, PLAIN;
    outcome_announced_after_the_release_is_caught: OutcomeAfterRelease, ANNOUNCED_IS_SO, PLAIN;
    refused_release_taken_as_a_success_is_caught: GoneIsReleased, RELEASED_WAS_HELD, PLAIN;
    loss_that_a_refused_release_hides_is_caught: GoneIsReleased, LOSS_IS_REPORTED, PLAIN;
    release_taken_as_an_earlier_attempts_success_is_caught: UnansweredIsReleased,
        RELEASED_WAS_HELD, LOSS;
    lease_handed_over_with_an_id_that_got_out_is_caught: SameIdHandedOver, LATE_WRITE_REFUSED,
        Bounds { hand_overs: 1, writes: 1, ..PLAIN };
    hand_overs_without_an_end_are_caught: UnboundedHandOvers, BOUNDED,
        Bounds { hand_overs: 1, ..PLAIN };
    change_taken_for_a_renewal_is_caught: ChangeIsRenewal, ONE_HOLDER,
        Bounds { hand_overs: 1, exposed: true, ..PLAIN };
    unproven_lease_handed_over_is_caught: UnprovenHandedOver, ONE_HOLDER,
        Bounds { hand_overs: 1, ..PLAIN };
    late_grant_left_to_run_out_is_caught: LateGrantForgotten, NOTHING_LEFT, PLAIN;
    deadline_counted_from_the_resend_is_caught_if_a_service_keeps_the_end: DeadlineFromResend,
        ONE_HOLDER, Bounds { keeps_end: true, ..LOSS };
}

#[test]
fn deadline_counted_from_the_resend_does_no_harm_by_the_contract() {
    // An acquire that is sent again with the ID that is active starts the lease anew. That the
    // core counts from the first send all the same is caution.
    let resend = World {
        bounds: LOSS,
        mistake: Some(Mistake::DeadlineFromResend),
    };
    assert_eq!(counterexample(resend, ONE_HOLDER).0, None);
}
