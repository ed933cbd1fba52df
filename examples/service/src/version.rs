//! Which version of the applications this is, and of which commit; both come from `build.rs`.

/// Version, commit and its day, as `--version` tells them.
pub const SUMMARY: &str = env!("HIGHWATER_BUILD_SUMMARY");
/// The version alone.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The beginning of the commit's name, or `unknown`.
pub const COMMIT: &str = env!("HIGHWATER_BUILD_COMMIT");
/// The day of the commit in UTC, or `unknown`.
pub const DATE: &str = env!("HIGHWATER_BUILD_DATE");
