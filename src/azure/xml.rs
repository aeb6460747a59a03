//! PURE: the XML in the service's replies.

use std::borrow::Cow;

use roxmltree::{Document, Error, Node, ParsingOptions};

/// The most nodes that a document may have. A page of a list has up to 5000 blobs with about 60 nodes
/// each.
const MAX_NODES: u32 = 500_000;

/// The most attributes that a tag may have, and the most that all tags with namespaces may have
/// together. The service sends at most two, and no namespaces.
const MAX_ATTRIBUTES: usize = 64;

/// Parses a reply. It may come from anyone, so time and memory stay proportional to its length.
/// Skips the byte order mark that the service sends.
pub(super) fn parse(text: &str) -> Result<Document<'_>, Error> {
    if !has_few_attributes(text) {
        return Err(Error::AttributesLimitReached);
    }
    let options = ParsingOptions {
        nodes_limit: MAX_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options)
}

/// The parser compares each attribute of a tag with all others, and copies namespaces to all nested
/// tags: a few megabytes of them would keep it busy for hours.
fn has_few_attributes(text: &str) -> bool {
    let (mut rest, mut namespaces) = (text, 0);
    'markup: while let Some(at) = rest.find('<') {
        rest = &rest[at..];
        for (open, close) in [("<!--", "-->"), ("<![CDATA[", "]]>"), ("<?", "?>")] {
            if let Some(inner) = rest.strip_prefix(open) {
                rest = inner.split_once(close).map_or("", |(_, after)| after);
                continue 'markup;
            }
        }
        let (mut end, mut attributes, mut quote) = (rest.len(), 0, None);
        for (at, byte) in rest.bytes().enumerate() {
            match (byte, quote) {
                (b'"' | b'\'', None) => {
                    quote = Some(byte);
                    attributes += 1;
                }
                (b'>', None) => {
                    end = at + 1;
                    break;
                }
                (byte, Some(open)) if byte == open => quote = None,
                _ => {}
            }
        }
        if rest[..end].contains("xmlns") {
            namespaces += attributes;
        }
        if attributes.max(namespaces) > MAX_ATTRIBUTES {
            return false;
        }
        rest = &rest[end..];
    }
    true
}

pub(super) fn elements<'a, 'input: 'a>(
    node: Node<'a, 'input>,
    name: &'a str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children()
        .filter(move |child| child.has_tag_name(name))
}

pub(super) fn text_of<'a>(node: Node<'a, '_>, name: &'a str) -> Cow<'a, str> {
    node.children()
        .find(|child| child.has_tag_name(name))
        .map(|child| texts(child).collect::<Cow<'_, str>>())
        .unwrap_or_default()
}

/// All text below `node`, without the comments in between.
pub(super) fn texts<'a>(node: Node<'a, '_>) -> impl Iterator<Item = &'a str> {
    node.descendants()
        .filter(Node::is_text)
        .filter_map(|text| text.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_counted_by_tag() {
        let many = |count: usize| "a='>' ".repeat(count);
        assert!(has_few_attributes(&format!("<a {}>", many(64)).repeat(9)));
        assert!(!has_few_attributes(&format!("<a {}>", many(65))));
        assert!(!has_few_attributes(&"<a xmlns:b='c'>".repeat(65)));
        for text in [
            format!("<a>{}</a>", many(99)),
            format!("<!--<a {}>--><a/>", many(99)),
            format!("<a><![CDATA[<a {}>]]></a>", many(99)),
            format!("<?a {}?><a/>", many(99)),
        ] {
            assert!(has_few_attributes(&text), "{text}");
            assert!(parse(&text).is_ok() || text.starts_with("<?a"), "{text}");
        }
    }

    #[test]
    fn what_follows_is_counted_too() {
        let many = "a='' ".repeat(99);
        for before in [
            "<!-- -->",
            "<![CDATA[<]]>",
            "<?a '?>",
            "<a b='\"'/>",
            "<a b=\"'\"/>",
        ] {
            assert!(
                !has_few_attributes(&format!("{before}<a {many}>")),
                "{before}"
            );
        }
        for open in ["<!--", "<![CDATA[", "<?", "<a b='"] {
            assert!(has_few_attributes(&format!("{open}<a>")), "{open}");
        }
    }

    #[test]
    fn document_with_too_many_nodes_is_refused() {
        let text = format!("<a>{}</a>", "<b/>".repeat(500_000));
        assert!(matches!(parse(&text), Err(Error::NodesLimitReached)));
    }

    #[test]
    fn document_type_is_refused() {
        let text = "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>";
        assert!(matches!(parse(text), Err(Error::DtdDetected)));
    }
}
