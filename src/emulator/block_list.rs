//! PURE: the documents of Put Block List and Get Block List.
//!
//! Source: <https://learn.microsoft.com/rest/api/storageservices/put-block-list>

use roxmltree::Document;

use super::failure::{self, Failure};
use super::reply::element;
use super::store::{BlockSize, BlockSource};

/// The most blocks that a blob has.
const LIMIT: usize = 50_000;

/// The blocks that make the blob, in order.
pub(super) fn read(body: &[u8]) -> Result<Vec<(BlockSource, String)>, Failure> {
    let text = str::from_utf8(body).map_err(|_| failure::INVALID_XML_DOCUMENT)?;
    let text = text.trim_start_matches('\u{feff}');
    let document = Document::parse(text).map_err(|_| failure::INVALID_XML_DOCUMENT)?;
    let root = document.root_element();
    if root.tag_name().name() != "BlockList" {
        return Err(failure::INVALID_XML_DOCUMENT);
    }
    let blocks = root.children().filter(roxmltree::Node::is_element);
    if blocks.clone().count() > LIMIT {
        return Err(failure::BLOCK_LIST_TOO_LONG);
    }
    let blocks = blocks.map(|block| {
        let source = match block.tag_name().name() {
            "Committed" => BlockSource::Committed,
            "Uncommitted" => BlockSource::Uncommitted,
            "Latest" => BlockSource::Latest,
            _ => return Err(failure::INVALID_XML_DOCUMENT),
        };
        Ok((source, block.text().unwrap_or_default().trim().to_owned()))
    });
    blocks.collect()
}

/// The document of Get Block List after its XML declaration; `None`: not asked for.
pub(super) fn xml(committed: Option<&[BlockSize]>, uncommitted: Option<&[BlockSize]>) -> String {
    let mut out = String::from("<BlockList>");
    for (name, blocks) in [
        ("CommittedBlocks", committed),
        ("UncommittedBlocks", uncommitted),
    ] {
        match blocks {
            None => {}
            Some([]) => element(&mut out, name, ""),
            Some(blocks) => {
                out.push_str(&format!("<{name}>"));
                for (id, size) in blocks {
                    out.push_str("<Block>");
                    element(&mut out, "Name", id);
                    element(&mut out, "Size", &size.to_string());
                    out.push_str("</Block>");
                }
                out.push_str(&format!("</{name}>"));
            }
        }
    }
    out.push_str("</BlockList>");
    out
}
