//! A way in for the fuzz targets (`tests/fuzz`).

use bytes::Bytes;

use super::message::Page;

/// A page of leaders: what is taken is the same bytes again.
pub fn leaders(bytes: &[u8]) {
    if let Ok(page) = Page::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(page.encode(), bytes);
    }
}
