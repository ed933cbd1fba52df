//! docs/api.md is what the contract says: services, messages, enumerations and limits, from the descriptors and the comments of the
//! `.proto` files, with who may call what from the tables that decide it and test it. With `HIGHWATER_WRITE_GOLDEN` set, the test writes it.
//!
//! Nothing of the contract may go without a comment: services, methods, messages but for plain requests and answers, fields, values.

mod comments;
mod limits;
mod messages;
mod services;

use std::path::Path;

use highwater_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use self::comments::Comments;

/// What stands before the generated part and behind it in the document.
const BEGIN: &str = "<!-- contract: written by a test -->\n";
const END: &str = "<!-- end of contract -->\n";

/// A file of the contract with its comments.
struct Source {
    file: FileDescriptorProto,
    comments: Comments,
}

impl Source {
    /// Such as `log.proto`.
    fn name(&self) -> &str {
        let path = self.file.name();
        path.rsplit('/').next().unwrap_or(path)
    }
}

fn sources() -> Vec<Source> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let read = |file: FileDescriptorProto| {
        let comments = Comments::of(&file);
        Source { file, comments }
    };
    let mut sources: Vec<Source> = set.file.into_iter().map(read).collect();
    sources.sort_by(|a, b| a.file.name().cmp(b.file.name()));
    sources
}

/// A name of the contract without its package: `.highwater.v1.Disk.State` is `Disk.State`.
fn short(name: &str) -> &str {
    name.strip_prefix(".highwater.v1.").unwrap_or(name)
}

/// Where a heading of the page is found; those of messages and enumerations are their names.
fn link(name: &str) -> String {
    let anchor = name.to_lowercase().replace('.', "");
    format!("[{name}](#{anchor})")
}

fn generated() -> String {
    let sources = sources();
    let mut page = String::from("## Services\n");
    sources.iter().for_each(|source| services::write(&mut page, source));
    page.push_str("\n## Messages\n");
    sources.iter().for_each(|source| messages::write(&mut page, source));
    page.push_str("\n## Limits\n\n");
    limits::write(&mut page);
    page
}

#[test]
fn the_reference_is_what_the_contract_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", generated());
    if std::env::var_os("HIGHWATER_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &expected).unwrap();
        return;
    }
    assert!(
        page == expected,
        "docs/api.md is not what the contract says: `make fix` mends that"
    );
}

#[test]
fn everything_in_the_contract_is_explained() {
    let sources = sources();
    let missing: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            let names = services::unexplained(source)
                .into_iter()
                .chain(messages::unexplained(source));
            names.map(|name| format!("{}: {name}", source.name()))
        })
        .collect();
    assert!(missing.is_empty(), "without a comment:\n  {}", missing.join("\n  "));
}
