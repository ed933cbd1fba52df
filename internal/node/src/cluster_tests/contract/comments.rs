//! The comments of a `.proto` file, by the place of what they are about.

use std::collections::BTreeMap;

use prost_types::FileDescriptorProto;

/// Numbers of fields in descriptors, of which a place is made.
pub(super) const MESSAGES: i32 = 4;
pub(super) const ENUMS: i32 = 5;
pub(super) const SERVICES: i32 = 6;
pub(super) const FIELDS: i32 = 2;
pub(super) const METHODS: i32 = 2;
pub(super) const VALUES: i32 = 2;
pub(super) const NESTED_ENUMS: i32 = 4;
/// Where what a file begins with is kept.
const SYNTAX: [i32; 1] = [12];

pub(super) struct Comments {
    by_place: BTreeMap<Vec<i32>, String>,
}

impl Comments {
    pub(super) fn of(file: &FileDescriptorProto) -> Self {
        let locations = file.source_code_info.iter().flat_map(|info| &info.location);
        let commented = locations.filter_map(|place| Some((place.path.clone(), place.leading_comments.clone()?)));
        Self {
            by_place: commented.collect(),
        }
    }

    /// What stands before something, in paragraphs; empty if nothing does.
    pub(super) fn before(&self, place: &[i32]) -> String {
        let text = self.by_place.get(place).map_or("", String::as_str);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let paragraphs = lines.split(|line| line.is_empty());
        let joined: Vec<String> = paragraphs
            .map(|lines| lines.join(" "))
            .filter(|text| !text.is_empty())
            .collect();
        joined.join("\n\n")
    }

    /// What the file begins with.
    pub(super) fn of_file(&self) -> String {
        self.before(&SYNTAX)
    }
}

/// A comment as a cell of a table.
pub(super) fn cell(comment: &str) -> String {
    comment.replace("\n\n", "<br>").replace('|', "\\|")
}

/// The place of a part of what is at a place.
pub(super) fn within(place: &[i32], parts: i32, index: usize) -> Vec<i32> {
    let index = i32::try_from(index).unwrap();
    [place, &[parts, index]].concat()
}
