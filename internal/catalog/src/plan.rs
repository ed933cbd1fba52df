//! Stand-in.
#![allow(missing_docs)]
use std::collections::{BTreeMap, BTreeSet};
use crate::{Catalog, Command};
pub struct View { pub usable: BTreeSet<String>, pub gone: BTreeSet<String> }
impl Catalog {
    pub fn plan_moves(&self, _view: &View, _led: impl Fn(u64) -> bool) -> Vec<Command> { Vec::new() }
    pub fn wanted_leaders(&self, _usable: &BTreeSet<String>) -> BTreeMap<u64, u64> { BTreeMap::new() }
    pub fn plan_catalog_voters(&self, _voters: &[u64], _view: &View) -> Option<Vec<u64>> { None }
}
