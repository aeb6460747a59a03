//! PURE: text from elsewhere, for a terminal: made visible, measured, shortened, quoted for a shell.

use unicode_width::UnicodeWidthChar as _;

/// Whether a terminal shows nothing for this character, or acts on it: control and format
/// characters, separators of lines and paragraphs, and those that Unicode calls default ignorable.
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

/// Text from elsewhere, made safe for a terminal: characters that are invisible, control the
/// terminal or change the direction of writing become `\u{...}`.
pub(crate) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

/// How many columns of a terminal the text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// The text in at most `columns`, with an ellipsis where it is cut.
pub(crate) fn shorten(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut left = columns.saturating_sub(1);
    for c in text.chars() {
        let taken = c.width().unwrap_or(0);
        if taken > left {
            break;
        }
        left -= taken;
        out.push(c);
    }
    if columns > 0 {
        out.push('…');
    }
    out
}

/// The text as one word for a shell, quoted only if necessary.
pub(crate) fn shell_word(text: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | ':' | '@' | '%' | '+' | ',')
    };
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else if !text.chars().any(is_invisible) {
        format!("'{}'", text.replace('\'', r"'\''"))
    } else {
        // The form of bash, zsh and ksh.
        let mut out = String::from("$'");
        for c in text.chars() {
            match c {
                '\'' | '\\' => out.extend(['\\', c]),
                c if is_invisible(c) => out.push_str(&format!("\\U{:08x}", u32::from(c))),
                c => out.push(c),
            }
        }
        out.push('\'');
        out
    }
}

/// The same for an argument that is no option.
pub(crate) fn shell_argument(text: &str) -> String {
    let word = shell_word(text);
    if text.starts_with('-') {
        format!("-- {word}")
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_get_nothing_that_is_invisible_or_controls_them() {
        assert_eq!(clean("a\u{1b}[2J\u{202e}b"), "a\\u{1b}[2J\\u{202e}b");
        assert_eq!(clean("prod/Jürgen 鍵 e\u{301}"), "prod/Jürgen 鍵 e\u{301}");
        for c in [
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{2060}',
            '\u{2064}',
            '\u{2069}',
            '\u{206a}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e0041}',
            '\u{e01ef}',
        ] {
            let shown = clean(&format!("a{c}b"));
            assert_eq!(shown, format!("a\\u{{{:x}}}b", u32::from(c)));
        }
    }

    #[test]
    fn width_is_in_columns() {
        for (text, columns) in [
            ("", 0),
            ("deploy", 6),
            ("鍵", 2),
            ("ｗｉｄｅ", 8),
            ("e\u{301}", 1),
            ("🔒", 2),
        ] {
            assert_eq!(width(text), columns, "{text}");
        }
    }

    #[test]
    fn shortened_text_fits_and_says_that_it_is_shortened() {
        for (text, columns, wanted) in [
            ("deploy", 6, "deploy"),
            ("deploy", 5, "depl…"),
            ("鍵鍵鍵", 6, "鍵鍵鍵"),
            ("鍵鍵鍵", 5, "鍵鍵…"),
            ("鍵鍵鍵", 4, "鍵…"),
            ("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…"),
            ("deploy", 1, "…"),
            ("deploy", 0, ""),
        ] {
            let short = shorten(text, columns);
            assert_eq!(short, wanted, "{text} {columns}");
            assert!(width(&short) <= columns);
        }
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_not_read_them_as_one() {
        for (text, word) in [
            ("prod/deploy-1.2", "prod/deploy-1.2"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$(reboot)", "'$(reboot)'"),
            ("it's", r"'it'\''s'"),
            ("~root", "'~root'"),
            ("ä", "'ä'"),
            ("a\u{202e}'b", r"$'a\U0000202e\'b'"),
        ] {
            assert_eq!(shell_word(text), word);
        }
        assert_eq!(shell_argument("-a b"), "-- '-a b'");
    }
}
