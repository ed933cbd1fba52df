//! A client that reads from one node, whatever the library would choose.

use highwater::proto::v1::Node;
use highwater::{DefaultPicker, Picker, Picture, Purpose};

/// Sends reads to the node of this name, and everything else where it belongs.
#[derive(Debug)]
pub struct ReadFrom(pub String);

impl Picker for ReadFrom {
    fn pick<'a>(&self, picture: &'a Picture, purpose: Purpose<'_>, avoid: &[String]) -> Option<&'a Node> {
        match purpose {
            Purpose::Read { .. } => picture.node(&self.0),
            purpose => DefaultPicker::default().pick(picture, purpose, avoid),
        }
    }
}
