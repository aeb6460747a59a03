//! PURE: the little XML that the service answers with.

use std::borrow::Cow;

use roxmltree::Node;

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

/// All text below `node`; comments and the like may stand in between.
pub(super) fn texts<'a>(node: Node<'a, '_>) -> impl Iterator<Item = &'a str> {
    node.descendants()
        .filter(Node::is_text)
        .filter_map(|text| text.text())
}

pub(super) fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}
