//! PURE: text that anyone may have written, made safe to show on a screen.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::text::is_invisible;

/// The longest encoded value in bytes, and the longest decoded one in characters.
pub(super) const MAX_LENGTH: usize = 1024;

/// What is percent-encoded in a metadata value, which is sent as a header: everything except
/// visible ASCII, and the percent sign itself.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b' ');

/// The visible part of a text, cut at [`MAX_LENGTH`] characters. `None` if nothing is left.
pub(super) fn visible(text: &str) -> Option<String> {
    let text = text.chars().filter(|c| !is_invisible(*c));
    let text: String = text.take(MAX_LENGTH).collect();
    Some(text).filter(|text| !text.is_empty())
}

/// Encodes any text as a metadata value, cut at a whole character if it is too long. Control
/// characters become spaces; other invisible characters are left out.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::new();
    let mut one = [0; 4];
    for c in text.trim().chars() {
        let c = match c {
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => ' ',
            c if is_invisible(c) => continue,
            c => c,
        };
        let encoded = utf8_percent_encode(c.encode_utf8(&mut one), ENCODED);
        let before = out.len();
        out.extend(encoded);
        if out.len() > MAX_LENGTH {
            out.truncate(before);
            break;
        }
    }
    out
}

/// The visible text of a metadata value.
pub(super) fn decode(value: &str) -> Option<String> {
    visible(&percent_decode_str(value).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_are_invisible_or_turn_the_text_are_left_out() {
        for c in [
            '\u{0}',
            '\u{1b}',
            '\n',
            '\u{7f}',
            '\u{85}',
            '\u{9b}',
            '\u{ad}',
            '\u{61c}',
            '\u{115f}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2064}',
            '\u{2066}',
            '\u{2069}',
            '\u{206f}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff9}',
            '\u{1d173}',
            '\u{e0001}',
            '\u{e0061}',
            '\u{e01ef}',
        ] {
            let value = format!("a{c}b");
            assert_eq!(visible(&value).as_deref(), Some("ab"), "{c:?}");
            let encoded = encode(&value);
            assert!(["ab", "a%20b"].contains(&&*encoded), "{c:?}: {encoded}");
            let (mut raw, mut one) = (String::from("a"), [0; 4]);
            for byte in c.encode_utf8(&mut one).bytes() {
                raw.push_str(&format!("%{byte:02X}"));
            }
            assert_eq!(decode(&raw).as_deref(), Some("a"), "{c:?}");
        }
    }

    #[test]
    fn text_in_any_script_is_kept() {
        for text in [
            "Jürgen@büro",
            "鍵 ホスト",
            "العربية",
            "🔒",
            "a\u{a0}b",
            "\u{fffd}",
        ] {
            assert_eq!(visible(text).as_deref(), Some(text));
            assert_eq!(decode(&encode(text)).as_deref(), Some(text));
        }
    }

    #[test]
    fn text_with_nothing_to_see_is_none() {
        for text in ["", "\u{200b}\u{202e}", "\n\t"] {
            assert_eq!(visible(text), None, "{text:?}");
        }
        assert_eq!(decode("%E2%80%8B"), None);
    }

    #[test]
    fn long_text_is_cut_at_a_whole_character() {
        assert_eq!(encode(&"x".repeat(5000)).len(), MAX_LENGTH);
        assert_eq!(
            decode(&encode(&"鍵".repeat(5000))),
            visible(&"鍵".repeat(MAX_LENGTH / 9))
        );
        assert_eq!(decode(&"x".repeat(5000)).unwrap().len(), MAX_LENGTH);
    }
}
