//! The school on real clusters, with the real program: what it answers, who may do what, and that every command is handled once and in
//! order per key while workers and a node are killed.

#![allow(clippy::unwrap_used)]

mod day;
mod http;
mod kills;
mod program;
