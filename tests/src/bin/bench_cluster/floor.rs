//! What the bare disk does in the same run: no acknowledgement can come sooner than a sync.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use crate::{Failure, table};

const SYNCS: usize = 500;

pub(crate) fn measure() -> Result<(), Failure> {
    let mut file: File = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[b'x'; 1024])?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    println!("\nthe bare disk");
    table::times("append 1 KiB and fdatasync, plain", times);
    Ok(())
}
