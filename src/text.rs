//! PURE: text from elsewhere, as errors show it.

/// Whether a screen shows nothing for this character, or acts on it: Unicode's general categories
/// Cc (control), Cf (format, which includes all that change the direction of writing), Zl and Zp
/// (separators of lines and paragraphs), and the property Default_Ignorable_Code_Point.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\0'..='\u{1f}'
            | '\u{7f}'..='\u{9f}'
            | '\u{ad}'
            | '\u{34f}'
            | '\u{600}'..='\u{605}'
            | '\u{61c}'
            | '\u{6dd}'
            | '\u{70f}'
            | '\u{890}'..='\u{891}'
            | '\u{8e2}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{110bd}'
            | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Text with escapes in place of what is invisible, and of quotes.
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) && !c.is_control() {
            out.extend(c.escape_unicode());
        } else {
            out.extend(c.escape_debug());
        }
    }
    out
}

/// Shows a rejected value, shortened so that an error stays readable.
pub(crate) fn quoted(value: &str) -> String {
    match value.char_indices().nth(64) {
        Some((end, _)) => format!("`{}…`", escaped(&value[..end])),
        None => format!("`{}`", escaped(value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_value_is_shown_short_and_with_nothing_invisible() {
        let shown = quoted("a\u{3164}b\u{202e}\u{e0041}\u{fe0f}\n鍵");
        assert_eq!(shown, r"`a\u{3164}b\u{202e}\u{e0041}\u{fe0f}\n鍵`");
        assert_eq!(quoted(&"x".repeat(65)), format!("`{}…`", "x".repeat(64)));
    }
}
