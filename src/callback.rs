//! Calls into the user's code.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls an observer or a logger. Returns whether it did not panic.
pub(crate) fn no_panic(call: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(call)).is_ok()
}
