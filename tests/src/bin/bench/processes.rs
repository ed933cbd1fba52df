//! What the kernel counts for the nodes' processes.

use std::fs;

use highwater_tests::TestCluster;

use crate::Failure;

/// Bytes that all nodes together have written since they started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Written {
    /// To files, in whole pages, as the kernel accounts them when a page becomes dirty (`write_bytes`).
    pub(crate) files: f64,
    /// Passed to write calls of any kind, to files and vectored ones to sockets (`wchar`).
    pub(crate) calls: f64,
}

impl Written {
    pub(crate) fn by_now(cluster: &TestCluster) -> Result<Written, Failure> {
        let mut sum = Written::default();
        for node in cluster.nodes() {
            let pid = node.pid().ok_or("a node does not run")?;
            let counted = fs::read_to_string(format!("/proc/{pid}/io"))?;
            sum.files += number_in(&counted, "write_bytes:")?;
            sum.calls += number_in(&counted, "wchar:")?;
        }
        Ok(sum)
    }

    pub(crate) fn since(self, before: Written) -> Written {
        Written {
            files: self.files - before.files,
            calls: self.calls - before.calls,
        }
    }
}

fn number_in(text: &str, name: &str) -> Result<f64, Failure> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.ok_or_else(|| format!("the kernel does not tell {name}"))?;
    Ok(number.trim().parse()?)
}
