//! PURE: fencing tokens.

/// A token greater than any that was handed out before: also after the blob was deleted and the count
/// with it, as long as clocks are right to within the time that took.
///
/// `last`: the last one handed out. `wall`: the time in milliseconds since 1970. `None` if there is no
/// greater one: somebody wrote the greatest there is.
pub(crate) fn next_token(last: Option<i64>, wall: i64) -> Option<i64> {
    match last {
        Some(last) => Some(last.checked_add(1)?.max(wall)),
        None => Some(wall.max(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_grow_whatever_the_clock_says() {
        assert_eq!(next_token(None, 1_000_000), Some(1_000_000));
        assert_eq!(next_token(None, -1), Some(0));
        assert_eq!(next_token(Some(999_999), 1_000_000), Some(1_000_000));
        assert_eq!(next_token(Some(1_000_000), 1_000_000), Some(1_000_001));
        assert_eq!(next_token(Some(5_000_000), 1_000_000), Some(5_000_001));
        assert_eq!(next_token(Some(7), -1_000_000), Some(8));
        assert_eq!(next_token(Some(i64::MAX), 1_000_000), None);
    }
}
